//! The documents of the metrics, beside the table in the source: the page, the alerts and the dashboard.
use std::collections::{HashMap, HashSet};

use mcp_courier::testing::metrics::{Description, all};
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the metrics by the names that expressions use. A histogram has three more.
fn by_name() -> HashMap<String, Description> {
    let series = |metric: Description| {
        let suffixes: &[&str] = if metric.kind == "histogram" { &["", "_bucket", "_count", "_sum"] } else { &[""] };
        suffixes.iter().map(move |suffix| (format!("{}{suffix}", metric.name), metric.clone())).collect::<Vec<_>>()
    };
    all().into_iter().flat_map(series).collect()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the metrics that an expression names, each with the text between its braces.
fn named(expression: &str) -> Vec<(&str, &str)> {
    let begins = expression.match_indices("mcp_courier_").map(|(at, _)| at);
    begins
        .map(|at| {
            let rest = &expression[at..];
            let (name, rest) = rest.split_at(rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()));
            let matchers = rest.strip_prefix('{').map(|rest| rest.split_once('}').expect("a closing brace").0);
            (name, matchers.unwrap_or_default())
        })
        .collect()
}

/// Checks that an expression names metrics that exist, with labels and values that they have. Returns the names.
fn check(expression: &str) -> HashSet<String> {
    let metrics = by_name();
    let mut seen = HashSet::new();
    for (name, matchers) in named(expression) {
        let metric = metrics.get(name).unwrap_or_else(|| panic!("{name} does not exist: {expression}"));
        for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
            let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
            if ["job", "instance"].contains(&label) {
                continue;
            }
            for value in value.trim_matches(['=', '~', '"', '!']).split('|') {
                let is_there = metric.labels.iter().flatten().any(|known| *known == (label, value));
                assert!(is_there, "{name} has no {label}={value}: {expression}");
            }
        }
        seen.insert(metric.name.to_owned());
    }
    assert!(!seen.is_empty(), "no metric is named: {expression}");
    for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
        assert_eq!(expression.matches(open).count(), expression.matches(close).count(), "{expression}");
    }
    seen
}

#[test]
fn every_metric_has_a_name_a_kind_and_bounded_labels() {
    let all = all();
    assert_eq!(all.iter().map(|metric| metric.name).collect::<HashSet<_>>().len(), all.len(), "a name occurs twice");
    for metric in &all {
        let Description { name, kind, unit, labels, text } = metric;
        assert!(name.starts_with("mcp_courier_") && name.chars().all(is_of_name), "{name}");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
        assert_eq!(*unit == "seconds", name.ends_with("_seconds"), "{name}: {unit}");
        assert!(text.ends_with('.') && text.len() > 20, "{name}: {text}");
        let last: HashSet<_> = labels.iter().map(|labels| labels.last()).collect();
        assert_eq!(last.len(), labels.len(), "{name}: the last label decides");
        let names: HashSet<Vec<_>> =
            labels.iter().map(|labels| labels.iter().map(|(name, _)| name).collect()).collect();
        assert_eq!(names.len(), 1, "{name}: each series has the same labels");
    }
}

#[test]
fn the_page_and_the_table_have_the_same_metrics() {
    let page = read("docs/metrics.md");
    let rows: HashMap<&str, &str> = page
        .lines()
        .filter_map(|line| Some((line.strip_prefix("| `mcp_courier_")?.split('`').next()?, line)))
        .collect();
    let mut left: HashSet<_> = rows.keys().copied().collect();
    for metric in all() {
        let name = metric.name.strip_prefix("mcp_courier_").unwrap();
        let row = rows.get(name).unwrap_or_else(|| panic!("docs/metrics.md has no row for {}", metric.name));
        left.remove(name);
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2], metric.kind, "{}", metric.name);
        let shown: HashSet<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        let known: HashSet<&str> = metric.labels.iter().flatten().flat_map(|(name, value)| [*name, *value]).collect();
        assert_eq!(shown, known, "the labels of {}", metric.name);
        assert!(cells[4..=5].iter().all(|cell| cell.len() > 10), "{row}");
    }
    assert!(left.is_empty(), "docs/metrics.md has {left:?}, which the table lacks");
}

#[test]
fn the_alerts_have_their_form_and_name_metrics_that_exist() {
    let text = read("docs/prometheus-alerts.yml");
    // The form is fixed, key by key, so a line that YAML would read in another way is found.
    let keys = [
        "      - alert: ",
        "        expr: ",
        "        for: ",
        "        labels:",
        "          severity: ",
        "        annotations:",
        "          summary: ",
        "          description: ",
        "          first_step: ",
    ];
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    for head in ["groups:", "  - name: mcp-courier", "    rules:"] {
        assert_eq!(lines.next(), Some(head));
    }
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len() % keys.len(), 0, "an alert has another number of keys");
    let (mut names, mut seen) = (HashSet::new(), HashSet::new());
    for alert in lines.chunks(keys.len()) {
        let values: Vec<&str> = alert
            .iter()
            .zip(keys)
            .map(|(line, key)| line.strip_prefix(key).unwrap_or_else(|| panic!("{line:?} has not the key {key:?}")))
            .collect();
        let [name, expression, wait, "", severity, "", ref texts @ ..] = values[..] else {
            panic!("{alert:?} has another form")
        };
        assert!(names.insert(name.to_owned()) && name.starts_with("McpCourier"), "{name}");
        seen.extend(check(expression));
        assert!(wait.strip_suffix('m').is_some_and(|minutes| minutes.parse::<u32>().is_ok()), "{name}: {wait}");
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        for text in texts.iter().chain([&expression]) {
            // What begins so, or contains these, is no plain scalar of YAML.
            let is_plain = !text.starts_with(['"', '\'', '{', '[', '&', '*', '!', '|', '>', '%', '@', '`', '-', '?'])
                && ![": ", " #"].iter().any(|special| text.contains(special))
                && !text.ends_with(':');
            assert!(is_plain && text.len() > 20, "{name}: {text}");
        }
    }
    assert!(names.len() >= 12 && seen.len() >= 12, "{} alerts on {} metrics", names.len(), seen.len());
}

#[test]
fn the_dashboard_can_be_imported_and_shows_every_metric() {
    let dashboard: Value = serde_json::from_str(&read("docs/grafana-dashboard.json")).unwrap();
    for key in ["title", "uid", "schemaVersion", "time"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    assert!(dashboard["id"].is_null(), "an id would replace a dashboard of the importing Grafana");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&"datasource".into(), &"datasource".into()));
    let mut seen = HashSet::new();
    for variable in &variables[1..] {
        seen.extend(check(variable["query"]["query"].as_str().unwrap()));
    }
    let (mut ids, mut places) = (HashSet::new(), HashSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id occurs twice");
        let place = &panel["gridPos"];
        assert!(places.insert((place["x"].as_u64(), place["y"].as_u64())), "two panels at {place}");
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24);
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            seen.extend(check(target["expr"].as_str().unwrap()));
        }
    }
    let missed: Vec<_> = all().into_iter().map(|metric| metric.name).filter(|name| !seen.contains(*name)).collect();
    assert!(missed.is_empty(), "no panel shows {missed:?}");
}

#[test]
#[should_panic(expected = "does not exist")]
fn a_name_that_does_not_exist_is_found() {
    check("sum(rate(mcp_courier_pushes_total[5m]))");
}

#[test]
#[should_panic(expected = "has no reason=expire")]
fn a_value_of_a_label_that_does_not_exist_is_found() {
    check(r#"mcp_courier_discarded_total{reason=~"superseded|expire"}"#);
}
