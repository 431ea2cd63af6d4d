//! Documents of the repository: each link leads somewhere, and each file and each test that a document names exists.

use std::path::{Path, PathBuf};

use super::layers::files_below;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path and the text of each document.
fn documents() -> Vec<(PathBuf, String)> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let in_dir = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(is_document);
    let paths = in_dir(root().to_owned()).chain(in_dir(root().join("docs"))).chain(in_dir(root().join("cli")));
    paths.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Returns the lines of a document outside its blocks of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number, line))
    })
}

/// Returns the anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(document: &str, wanted: &str) -> bool {
    prose(document).any(|(_, line)| line.starts_with('#') && anchor(line) == wanted)
}

/// Returns the targets of the links of a line that lead within the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

#[test]
fn each_link_of_a_document_leads_to_a_file_and_a_heading() {
    let mut checked = 0;
    for (path, text) in documents() {
        for (number, line) in prose(&text) {
            for link in links(line) {
                checked += 1;
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                let place = format!("{}:{number}: {link}", path.display());
                assert!(target.exists(), "{place} leads to no file");
                let is_there = heading.is_empty() || has_anchor(&std::fs::read_to_string(target).unwrap(), heading);
                assert!(is_there, "{place} leads to no heading");
            }
        }
    }
    assert!(checked > 30, "only {checked} links were found");
    assert!(has_anchor("## Features, and `code`", "features-and-code"));
}

/// Code span of a line: the text before the span, back to the span before, and the text within.
fn spans(line: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = line.split('`').collect();
    parts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

const DIRECTORIES: [&str; 7] = ["cli/", "docs/", "examples/", "scripts/", "src/", "testing/", "tests/"];

/// Returns whether a code span is the path of a file or directory of this repository, or a pattern of such paths.
fn is_path(span: &str) -> bool {
    DIRECTORIES.iter().any(|dir| span.starts_with(dir)) && !span.contains([' ', '<', '{'])
}

/// Returns whether a path exists, or a file that a pattern with one `*` in its last part matches.
fn exists(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else { return root().join(path).exists() };
    let (dir, begin) = before.rsplit_once('/').unwrap();
    let mut names = std::fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_str().is_some_and(|name| name.starts_with(begin) && name.ends_with(after)))
}

#[test]
fn each_file_that_a_document_names_exists() {
    let mut checked = 0;
    for (path, text) in documents() {
        for (number, line) in prose(&text) {
            for (_, span) in spans(line).into_iter().filter(|(_, span)| is_path(span)) {
                checked += 1;
                assert!(exists(span), "{}:{number} names {span}, which does not exist", path.display());
            }
        }
    }
    assert!(checked > 60, "only {checked} paths were found");
    assert!(exists("tests/*") && exists("src/*.rs") && !exists("src/nothing*") && !exists("tests/nothing.rs"));
}

/// Returns the beginning of the name of a test that a code span gives: whole, or with its end left out.
fn test_name(span: &str) -> Option<&str> {
    let begin = span.trim_end_matches('…');
    let is_name = begin.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_long = begin.matches('_').count() >= 4;
    (is_name && begin.contains('_') && (is_long || span != begin)).then_some(begin)
}

/// Returns whether a word of a text is a name, or begins with it where its end is left out.
fn names(text: &str, begin: &str, is_whole: bool) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(begin).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + begin.len()..].chars().next());
        !(before.is_some_and(is_word) || is_whole && after.is_some_and(is_word))
    })
}

#[test]
fn each_test_that_a_document_names_exists_in_the_file_that_it_names() {
    let sources: Vec<(PathBuf, String)> = ["src", "tests", "testing/src"]
        .iter()
        .flat_map(|dir| files_below(&root().join(dir)))
        .filter(|path| path.extension().is_some_and(|e| ["rs", "py", "mjs"].iter().any(|known| e == *known)))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let (mut checked, mut in_their_files) = (0, 0);
    for (path, text) in documents() {
        for (number, line) in prose(&text) {
            // File whose tests are listed behind its path.
            let mut file = None;
            for (before, span) in spans(line) {
                if is_path(span) && span.ends_with(".rs") {
                    file = Some(root().join(span));
                    continue;
                }
                file = file.filter(|_| before == " " || before == ", ");
                let Some(begin) = test_name(span) else { continue };
                checked += 1;
                in_their_files += usize::from(file.is_some());
                let candidates = sources.iter().filter(|(path, _)| file.as_ref().is_none_or(|file| path == file));
                let is_there = candidates.into_iter().any(|(_, source)| names(source, begin, span == begin));
                assert!(is_there, "{}:{number} names the test {span}, which is not there", path.display());
            }
        }
    }
    assert!(checked > 80 && in_their_files > 30, "only {checked} names were found, {in_their_files} of them in files");
    assert!(names("fn a_b_c() {}", "a_b", false) && !names("fn a_b_c() {}", "a_b", true));
    assert!(!names("fn a_b_c() {}", "b_c", false));
}

/// Returns the lines of a source that are doc comments, with their numbers.
fn doc_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_doc = |line: &str| ["///", "//!"].iter().any(|mark| line.trim_start().starts_with(mark));
    source.lines().zip(1..).filter(move |(line, _)| is_doc(line)).map(|(line, number)| (number, line))
}

#[test]
fn each_test_and_each_file_that_a_doc_comment_names_exists() {
    let sources: Vec<(PathBuf, String)> = ["src", "tests", "testing/src"]
        .iter()
        .flat_map(|dir| files_below(&root().join(dir)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    // The comments themselves do not count: a name must stand in the code.
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: Vec<String> =
        sources.iter().map(|(_, source)| source.lines().filter(is_code).collect::<Vec<_>>().join("\n")).collect();
    let (mut tests, mut paths) = (0, 0);
    for (path, source) in sources.iter().filter(|(path, _)| path.starts_with(root().join("src"))) {
        for (number, line) in doc_lines(source) {
            for (_, span) in spans(line) {
                let place = format!("{}:{number}", path.display());
                if is_path(span) {
                    paths += 1;
                    assert!(exists(span), "{place} names {span}, which does not exist");
                } else if let Some(begin) = test_name(span) {
                    tests += 1;
                    let is_there = code.iter().any(|code| names(code, begin, span == begin));
                    assert!(is_there, "{place} names the test {span}, which is not there");
                }
            }
        }
    }
    assert!(tests > 100 && paths > 2, "only {tests} tests and {paths} paths were found");
    assert_eq!(doc_lines("a\n/// b\n// c\n    //! d").collect::<Vec<_>>(), [(2, "/// b"), (4, "    //! d")]);
}

#[test]
fn the_matrix_of_versions_is_that_of_cargo() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let (page, manifest, lock) = (read("docs/versioning.md"), read("Cargo.toml"), read("Cargo.lock"));
    let rows = page.lines().skip_while(|line| !line.starts_with("| what | required")).skip(2);
    let rows: Vec<Vec<_>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() > 8, "the matrix was not found: {rows:?}");
    for row in rows {
        let [_, what, required, tested, _] = row[..] else { panic!("a row of three cells: {row:?}") };
        // As in "redis-rs (`redis`)": the name of the package stands in the parentheses.
        let name = what.rsplit_once("(`").map_or(what, |(_, name)| name.trim_end_matches("`)"));
        if name == "Rust" {
            assert!(manifest.contains(&format!("\nrust-version = \"{required}\"")), "{what} {required}");
            continue;
        }
        let is_required = |line: &str| {
            let rest = line.strip_prefix(&format!("{name} = ")).and_then(|rest| rest.split('"').nth(1));
            rest == Some(required)
        };
        let dependencies = manifest.lines().skip_while(|line| *line != "[dependencies]");
        assert!(dependencies.take_while(|line| *line != "[dev-dependencies]").any(is_required), "{what} {required}");
        let locked = format!("name = \"{name}\"\nversion = \"{tested}\"\n");
        assert!(lock.contains(&locked), "{what} {tested} is not the version in Cargo.lock");
    }
}
