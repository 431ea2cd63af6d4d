//! Small linter: splits Lua into tokens, and tracks where each name is declared.

use std::collections::HashSet;

/// Names that Redis gives to scripts, and that our scripts may read.
const GLOBALS: [&str; 11] =
    ["ARGV", "KEYS", "cjson", "ipairs", "math", "pcall", "redis", "string", "tonumber", "type", "unpack"];

const KEYWORDS: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or",
    "repeat", "return", "then", "true", "until", "while",
];

/// Word, number, string or sign of a script. Comments are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    Keyword(&'a str),
    Number(&'a str),
    Text(&'a str),
    Sign(&'a str),
}

/// Splits a script into tokens. Long brackets are not read, as no script of ours has any.
pub(super) fn tokens(mut text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    loop {
        text = text.trim_start();
        let Some(first) = text.chars().next() else { return tokens };
        let rest = &text[first.len_utf8()..];
        let length = |allowed: fn(char) -> bool| text.find(|c| !allowed(c)).unwrap_or(text.len());
        let end = match first {
            '-' if rest.starts_with('-') => {
                text = text.find('\n').map_or("", |end| &text[end..]);
                continue;
            }
            '\'' | '"' => {
                let mut escaped = false;
                let end = rest.find(|c| {
                    c == first && !escaped || {
                        escaped = c == '\\' && !escaped;
                        false
                    }
                });
                let end = end.expect("a string has an end") + 2;
                tokens.push(Token::Text(&text[1..end - 1]));
                end
            }
            'A'..='Z' | 'a'..='z' | '_' => {
                let end = length(|c| c.is_ascii_alphanumeric() || c == '_');
                let word = &text[..end];
                tokens.push(if KEYWORDS.contains(&word) { Token::Keyword(word) } else { Token::Name(word) });
                end
            }
            '0'..='9' => {
                let end = length(|c| c.is_ascii_alphanumeric() || c == '.');
                tokens.push(Token::Number(&text[..end]));
                end
            }
            _ => {
                let long = ["...", "..", "==", "~=", "<=", ">="].into_iter().find(|sign| text.starts_with(sign));
                let end = long.map_or(first.len_utf8(), str::len);
                tokens.push(Token::Sign(&text[..end]));
                end
            }
        };
        text = &text[end..];
    }
}

/// Returns the names that a script uses without a declaration: its global variables.
///
/// A name counts as declared already in the values that it gets.
pub(super) fn globals<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut scopes: Vec<HashSet<&str>> = vec![GLOBALS.into()];
    let (mut of_loop, mut tables, mut found, mut at) = (HashSet::new(), 0, Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        let (before, next) = (at.checked_sub(1).map(|before| tokens[before]), tokens.get(at + 1).copied());
        at += 1;
        match token {
            Token::Keyword("local") if next == Some(Token::Keyword("function")) => {
                scopes.last_mut().unwrap().extend(names(&tokens[at + 1..]));
            }
            Token::Keyword("local") => scopes.last_mut().unwrap().extend(names(&tokens[at..])),
            Token::Keyword("for") => {
                of_loop = names(&tokens[at..]);
                at += 2 * of_loop.len() - 1;
            }
            Token::Keyword("function") => {
                let open = at + tokens[at..].iter().position(|token| *token == Token::Sign("(")).unwrap() + 1;
                scopes.push(names(&tokens[open..]));
            }
            Token::Keyword("do" | "then" | "repeat") => scopes.push(std::mem::take(&mut of_loop)),
            Token::Keyword("else") => *scopes.last_mut().unwrap() = HashSet::new(),
            Token::Keyword("elseif" | "end" | "until") => drop(scopes.pop()),
            Token::Sign("{") => tables += 1,
            Token::Sign("}") => tables -= 1,
            Token::Name(name) => {
                let is_field = before == Some(Token::Sign(".")) || (tables > 0 && next == Some(Token::Sign("=")));
                if !is_field && !scopes.iter().any(|scope| scope.contains(name)) {
                    found.push(*name);
                }
            }
            _ => {}
        }
    }
    found
}

/// Returns the writing commands that Redis refuses when it is out of memory, where no other write comes before them.
///
/// A write counts for the rest of its block and for the blocks within, as each branch may be the only one to run.
pub(super) fn first_writes_that_need_memory<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let (mut has_written, mut found) = (vec![false], Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        let outer = has_written[has_written.len().saturating_sub(2)];
        match token {
            Token::Keyword("do" | "then" | "repeat" | "function") => has_written.push(*has_written.last().unwrap()),
            Token::Keyword("else") => *has_written.last_mut().unwrap() = outer,
            Token::Keyword("elseif" | "end" | "until") => drop(has_written.pop()),
            Token::Text(command) if tokens[..at].ends_with(&[Token::Sign("(")]) => match *command {
                "DEL" | "LREM" | "LTRIM" | "PEXPIRE" | "RPOP" => *has_written.last_mut().unwrap() = true,
                "HSET" | "LPUSH" | "LSET" | "SET" | "ZADD" if has_written.last() == Some(&false) => {
                    found.push(*command)
                }
                _ => {}
            },
            _ => {}
        }
    }
    found
}

/// Reads a list of names.
fn names<'a>(tokens: &[Token<'a>]) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for pair in tokens.chunks(2) {
        let Token::Name(name) = pair[0] else { break };
        names.insert(name);
        if pair.get(1) != Some(&Token::Sign(",")) {
            break;
        }
    }
    names
}

/// Entries of a script's header: for `KEYS` or `ARGV` the numbers in order, and whether the last is open (`[7..]`).
pub(super) fn header(file: &str, list: &str) -> (Vec<usize>, bool) {
    let header = file.lines().take_while(|line| line.starts_with("--"));
    let entries =
        header.filter_map(|line| line.strip_prefix("-- ")?.strip_prefix(list)?.strip_prefix('[')?.split_once("] "));
    let mut is_open = false;
    let numbers = entries.map(|(number, meaning)| {
        assert!(!is_open, "an entry follows the open one");
        assert!(!meaning.trim().is_empty(), "{list}[{number}] has no meaning");
        is_open = number.ends_with("..");
        number.trim_end_matches("..").parse().unwrap()
    });
    (numbers.collect(), is_open)
}

/// Uses of `KEYS` or `ARGV` in a script: each by its number, or `None` where the index is no number.
pub(super) fn uses(tokens: &[Token<'_>], list: &str) -> Vec<Option<usize>> {
    let at = |&at: &usize| tokens[at] == Token::Name(list);
    let number = |at| match tokens[at + 1..] {
        [Token::Sign("["), Token::Number(number), Token::Sign("]"), ..] => Some(number.parse().unwrap()),
        _ => None,
    };
    (0..tokens.len()).filter(at).map(number).collect()
}

/// Returns whether a token belongs to calendar arithmetic: a number of days or seconds, or the name of a calendar part.
pub(super) fn is_of_the_calendar(token: &Token<'_>) -> bool {
    match token {
        Token::Number(number) => {
            matches!(*number, "24" | "60" | "365" | "366" | "1440" | "3600" | "86400" | "146097" | "719468")
        }
        Token::Name(name) => ["date", "rfc", "year", "month"].iter().any(|word| name.contains(word)),
        Token::Text(text) => text.contains("%04d"),
        _ => false,
    }
}

#[test]
fn the_linter_finds_first_writes() {
    for (text, found) in [
        ("call('DEL', a) call('SET', a)", &[][..]),
        ("call('DEL', a) if b then call('SET', a) end", &[]),
        ("call('SET', a)", &["SET"]),
        ("if b then call('DEL', a) end call('SET', a)", &["SET"]),
        ("if b then call('DEL', a) else call('LPUSH', a) end", &["LPUSH"]),
        ("if b then call('DEL', a) elseif c then call('HSET', a) end", &["HSET"]),
    ] {
        assert_eq!(first_writes_that_need_memory(&tokens(text)), found, "{text}");
    }
}

#[test]
fn the_linter_finds_globals() {
    let globals = |text| super::lint::globals(&tokens(text));
    for good in [
        "local a = KEYS[1] return a.b",
        "local function f(a, b) return f(b, a) end return f(1, 2)",
        "for i = 1, 2 do local x = i end for _, v in ipairs({a = 1}) do redis.call('GET', v) end",
        "local x if true then local y = 1 elseif x then x = 2 else x = 3 end -- return y",
        "pcall(function() redis.call(\"x ' \\\" y\") end)",
        "local a repeat a = 1 until a",
    ] {
        assert_eq!(globals(good), Vec::<&str>::new(), "{good}");
    }
    for (bad, name) in [
        ("x = 1", "x"),
        ("local y = 1 y, x = 2, 3", "x"),
        ("if true then local x = 1 end return x", "x"),
        ("if true then local x = 1 else return x end", "x"),
        ("for x = 1, 2 do end return x", "x"),
        ("local function f(x) end return x", "x"),
        ("local a = {x}", "x"),
        ("return os.time()", "os"),
    ] {
        assert_eq!(globals(bad), [name], "{bad}");
    }
}
