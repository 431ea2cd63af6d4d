//! The programs of the fleet. Each ends when its [`Program`] is dropped.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use mcp_courier::Cause;

/// Variable with each token and its user. A command line would show tokens to everybody on the machine.
pub(crate) const USERS: &str = "FLEET_USERS";

/// Makes a directory that ends with its value. Where root starts nginx, the workers of nginx are another user, who has to
/// enter the directory.
pub(crate) fn directory() -> Result<tempfile::TempDir, Cause> {
    Ok(tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir()?)
}

/// Starts Redis, and returns its URL.
pub(crate) fn redis(directory: &Path) -> Result<(Program, String), Cause> {
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(directory);
    Ok((Program::start(command.stdout(Stdio::null()))?.until_open(port)?, format!("redis://127.0.0.1:{port}/")))
}

/// Starts a server, and returns its port.
pub(crate) fn server(redis: &str, users: &[(String, String)]) -> Result<(Program, u16), Cause> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["server", redis]).env(USERS, serde_json::to_string(users)?).stdout(Stdio::piped());
    let mut server = Program::start(&mut command)?;
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().ok_or("no output")?).read_line(&mut port)?;
    Ok((server, port.trim().parse()?))
}

pub(crate) fn worker(redis: &str) -> Result<Program, Cause> {
    Program::start(Command::new(env::current_exe()?).args(["worker", redis]))
}

/// Starts nginx as documented in front of the servers at two ports, and returns the URL for clients.
pub(crate) fn nginx(directory: &Path, [first, second]: [u16; 2]) -> Result<(Program, String), Cause> {
    let (own, file) = (free_port()?, directory.join("nginx.conf"));
    let mut conf = include_str!("../../docs/proxies/nginx.conf").to_owned();
    for (documented, port) in [(8000, own), (8080, first), (8081, second)] {
        conf = conf.replace(&format!("127.0.0.1:{documented}"), &format!("127.0.0.1:{port}"));
    }
    fs::write(&file, conf)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "stderr", "-g", "daemon off;"]);
    command.stderr(File::create(directory.join("nginx.log"))?);
    Ok((Program::start(&mut command)?.until_open(own)?, format!("http://127.0.0.1:{own}/mcp")))
}

pub(crate) struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Result<Self, Cause> {
        // Debian has nginx in /usr/sbin, which is not in every user's PATH.
        command.env("PATH", format!("{}:/usr/sbin", env::var("PATH").unwrap_or_default()));
        // In a process group of its own, ctrl-c does not reach the program: this process ends all in their order.
        let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(|error| {
            let program = command.get_program().display();
            format!("{program} does not start: {error}. On Debian: apt-get install nginx-light redis-server")
        });
        Ok(Self(child?))
    }

    fn until_open(mut self, port: u16) -> Result<Self, Cause> {
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("a program ended before it listened at port {port}: {status}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }

    /// Ends the program by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), Cause> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    /// Ends the program by SIGTERM, at which nginx ends its workers, and a server its streams.
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let _ = self.0.wait();
        }
    }
}

fn free_port() -> Result<u16, Cause> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
