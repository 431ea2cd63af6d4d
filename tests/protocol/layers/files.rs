//! The graph of the crate's files: an arrow leads from a file to each file that defines something the first one names.
//!
//! Paths are followed through `use` to the file of the definition, so a re-export ties nobody to the file that re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names that a file takes from another, by the paths of both files relative to `src`.
pub(crate) type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// Module, in a file of its own or within the file of another module.
#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    definitions: BTreeSet<String>,
    /// Path that each imported name stands for.
    imports: BTreeMap<String, Vec<String>>,
    /// Modules of which every name is imported.
    globs: Vec<Vec<String>>,
    /// Every path that is named, imports included.
    paths: Vec<Vec<String>>,
}

/// Meaning of a path: a module, or a name and the module that defines the name.
enum Meaning {
    Module(usize),
    Item(usize, String),
}

/// All modules of the crate except those of tests; the first is the root.
pub(crate) struct Modules {
    src: PathBuf,
    all: Vec<Module>,
}

impl Modules {
    /// Reads `lib.rs` in `src` and every module that it and its modules declare.
    pub(crate) fn read(src: &Path) -> Self {
        let mut modules = Self { src: src.to_owned(), all: Vec::new() };
        modules.read_file("lib.rs".to_owned(), None, "");
        modules
    }

    /// Returns the arrows between files.
    pub(crate) fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (number, module) in self.all.iter().enumerate() {
            for path in &module.paths {
                let Some(Meaning::Item(definer, name)) = self.meaning(number, path) else { continue };
                let other = &self.all[definer].file;
                if *other != module.file {
                    arrows.entry((module.file.clone(), other.clone())).or_default().insert(name);
                }
            }
        }
        arrows
    }

    /// Reads the file of a module; the files of its children are in `dir`.
    fn read_file(&mut self, file: String, parent: Option<usize>, dir: &str) -> usize {
        let text = std::fs::read_to_string(self.src.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.read_module(file, parent, dir, &without_tests(&tokens(&text)))
    }

    fn read_module(&mut self, file: String, parent: Option<usize>, dir: &str, tokens: &[String]) -> usize {
        let module = self.all.len();
        self.all.push(Module { file: file.clone(), parent, ..Module::default() });
        let mut at = 0;
        while at < tokens.len() {
            let next = tokens.get(at + 1).cloned().unwrap_or_default();
            match tokens[at].as_str() {
                "mod" => {
                    let child_dir = format!("{dir}{next}/");
                    at += 2;
                    let child = if tokens[at] == "{" {
                        let (from, end) = (at + 1, end_of_group(tokens, at));
                        at = end;
                        self.read_module(file.clone(), Some(module), &child_dir, &tokens[from..end - 1])
                    } else {
                        self.read_file(format!("{dir}{next}.rs"), Some(module), &child_dir)
                    };
                    self.all[module].children.insert(next, child);
                }
                "{" => {
                    let end = end_of_group(tokens, at);
                    self.all[module].add_paths(&tokens[at + 1..end]);
                    at = end;
                }
                "struct" | "enum" | "trait" | "fn" | "const" | "static" | "type" => {
                    self.all[module].definitions.insert(next);
                    at += 1;
                }
                _ => at += self.all[module].add_path(&tokens[at..]),
            }
        }
        module
    }

    /// Returns the meaning of a path in a module, or `None` where the path leads out of the crate or is local.
    fn meaning(&self, module: usize, path: &[String]) -> Option<Meaning> {
        let mut here = match path[0].as_str() {
            "crate" => 0,
            "self" => module,
            "super" => self.all[module].parent?,
            name => match self.named(module, name)? {
                Meaning::Module(next) => next,
                item => return Some(item),
            },
        };
        for name in &path[1..] {
            here = match name.as_str() {
                "super" => self.all[here].parent?,
                name => match self.named(here, name) {
                    Some(Meaning::Module(next)) => next,
                    Some(item) => return Some(item),
                    // What a macro defines.
                    None => return Some(Meaning::Item(here, name.to_owned())),
                },
            };
        }
        Some(Meaning::Module(here))
    }

    /// Returns what a module calls by a name, or `None` where the name is none of this crate's.
    fn named(&self, module: usize, name: &str) -> Option<Meaning> {
        let this = &self.all[module];
        if let Some(child) = this.children.get(name) {
            return Some(Meaning::Module(*child));
        }
        if this.definitions.contains(name) {
            return Some(Meaning::Item(module, name.to_owned()));
        }
        // Other crates are left out, and with them `use serde_json;`, which would be looked up under its own name again.
        let is_held = |path: &&Vec<String>| {
            ["crate", "self", "super"].contains(&path[0].as_str()) || this.children.contains_key(&path[0])
        };
        if let Some(path) = this.imports.get(name) {
            return Some(path).filter(is_held).and_then(|path| self.meaning(module, path));
        }
        this.globs.iter().filter(is_held).find_map(|glob| match self.meaning(module, glob)? {
            Meaning::Module(other) => self.named(other, name),
            Meaning::Item(..) => None,
        })
    }
}

impl Module {
    /// Reads a tree of imports behind `path`.
    fn import(&mut self, mut path: Vec<String>, tree: &[String]) {
        let mut name = None;
        for (at, token) in tree.iter().enumerate() {
            match token.as_str() {
                "{" => {
                    let (mut from, mut depth) = (at + 1, 0);
                    for (at, token) in tree.iter().enumerate().skip(at + 1) {
                        let is_end = depth == 0 && (token == "," || token == "}");
                        depth += i32::from(token == "{") - i32::from(token == "}");
                        if is_end {
                            self.import(path.clone(), &tree[from..at]);
                            from = at + 1;
                        }
                    }
                    return;
                }
                "*" => return self.globs.push(path),
                "self" if at > 0 || !path.is_empty() => {}
                "as" => {
                    name = tree.get(at + 1);
                    break;
                }
                "::" => {}
                part => path.push(part.to_owned()),
            }
        }
        if let Some(name) = name.or(path.last()).filter(|_| !tree.is_empty()) {
            self.imports.insert(name.clone(), path.clone());
            self.paths.push(path);
        }
    }

    fn add_paths(&mut self, tokens: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            at += self.add_path(&tokens[at..]);
        }
    }

    /// Adds the path at the beginning of the tokens, if there is one. Returns the number of tokens that were read.
    fn add_path(&mut self, tokens: &[String]) -> usize {
        if tokens[0] == "use" && tokens.get(1).is_some_and(|next| next != "<") {
            let end = tokens.iter().position(|token| token == ";").unwrap();
            self.import(Vec::new(), &tokens[1..end]);
            return end;
        }
        let is_word = |at: usize| tokens.get(at).is_some_and(|token| token.starts_with(is_of_word));
        let mut end = 1;
        while is_word(0) && tokens.get(end).is_some_and(|token| token == "::") && is_word(end + 1) {
            end += 2;
        }
        if end > 1 {
            self.paths.push(tokens[..end].iter().step_by(2).cloned().collect());
        }
        end
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the words and signs of a source, without its comments and without the content of its literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix(['r', 'b', 'c']).map(|raw| raw.trim_start_matches('r')).unwrap_or_default();
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if raw[hashes..].starts_with('"') && (hashes > 0 || rest.starts_with('r')) {
            let (start, end) = (rest.len() - raw.len() + hashes + 1, format!("\"{}", "#".repeat(hashes)));
            start + rest[start..].find(&end).unwrap() + end.len()
        } else if first == '"' {
            end_of_literal(rest, '"')
        } else if first == '\'' && (rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'')) {
            end_of_literal(rest, '\'')
        } else {
            let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()).max(first.len_utf8());
            let length = if rest.starts_with("::") { 2 } else { length };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of the literal at the beginning of a text, with its quotes.
fn end_of_literal(text: &str, quote: char) -> usize {
    let mut escaped = true;
    let end = text.char_indices().find(|(_, c)| {
        let is_end = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        is_end
    });
    end.unwrap().0 + 1
}

/// Returns the place behind the group that opens at a place.
fn end_of_group(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    let end = tokens[at..].iter().position(|token| {
        depth += i32::from(["{", "(", "["].contains(&token.as_str()));
        depth -= i32::from(["}", ")", "]"].contains(&token.as_str()));
        depth == 0
    });
    at + end.unwrap() + 1
}

/// Returns the tokens without the items that only tests see.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const OF_TESTS: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(OF_TESTS.len()).eq(OF_TESTS) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += OF_TESTS.len();
        let has_body = !["use", "const", "static", "type"].contains(&tokens[at].as_str());
        while tokens[at] != ";" && !(has_body && tokens[at] == "{") {
            at = if ["{", "(", "["].contains(&tokens[at].as_str()) { end_of_group(tokens, at) } else { at + 1 };
        }
        at = if tokens[at] == ";" { at + 1 } else { end_of_group(tokens, at) };
    }
    kept
}

/// Returns a circle for each arrow that lies on one, except for those between a module and its own child.
pub(crate) fn circles(arrows: &Arrows) -> Vec<Vec<&str>> {
    let mut circles = Vec::new();
    for (from, to) in arrows.keys() {
        if !is_child(from, to)
            && !is_child(to, from)
            && let Some(back) = way(arrows, to, from)
        {
            circles.push([vec![from.as_str()], back].concat());
        }
    }
    circles
}

/// Returns whether the first file belongs to a child of the other's module.
fn is_child(file: &str, parent: &str) -> bool {
    let name = file.strip_prefix(parent.trim_end_matches(".rs")).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !name.contains('/'))
}

/// Returns the shortest way along arrows.
fn way<'a>(arrows: &'a Arrows, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::from([from]);
    for number in 0.. {
        let way = ways.get(number)?.clone();
        let last = way[way.len() - 1];
        if last == to {
            return Some(way);
        }
        for (_, next) in arrows.keys().filter(|(start, _)| start == last) {
            if seen.insert(next) {
                ways.push([way.as_slice(), &[next]].concat());
            }
        }
    }
    None
}
