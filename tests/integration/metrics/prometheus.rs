//! The files in etc/monitoring with a real Prometheus: it scrapes over TLS with a password, takes the alerts, and
//! each expression of the dashboard has an answer.

use crate::host::{Host, Rfw, SOON, until};
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};

const CONFIG: &str = include_str!("../../../etc/monitoring/prometheus.yml");
const RULES: &str = include_str!("../../../etc/monitoring/rfw.rules.yml");
const DASHBOARD: &str = include_str!("../../../etc/monitoring/grafana.json");
const RULES_TEST: &str = include_str!("rfw.rules.test.yml");

/// A Prometheus on a host, with what etc/monitoring has for it.
struct Prometheus<'a> {
    host: &'a Host,
    child: Child,
}

impl Prometheus<'_> {
    /// Starts it. It asks each second.
    #[track_caller]
    fn start(host: &Host) -> Prometheus<'_> {
        fs::create_dir(host.dir.join("prometheus")).unwrap();
        let config = replaced(
            CONFIG,
            &[("scrape_interval: 15s", "scrape_interval: 1s"), ("11.11.11.11", "127.0.0.1")],
        );
        let config = format!("global:\n  evaluation_interval: 1s\n{config}");
        host.write("prometheus/prometheus.yml", 0o644, &config);
        host.write("prometheus/rfw.rules.yml", 0o644, RULES);
        host.write("prometheus/rfw.password", 0o600, "secret of monitor\n");
        fs::copy(host.dir.join("ca.crt"), host.dir.join("prometheus/rfw-ca.crt")).unwrap();
        host.run("promtool", &["check", "config", "prometheus/prometheus.yml"]).ok();
        let child = host
            .command("prometheus")
            .args(["--config.file=prometheus/prometheus.yml", "--storage.tsdb.path=prometheus/data"])
            .args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(host.dir.join("prometheus.err")).unwrap())
            .spawn()
            .expect("prometheus");
        Prometheus { host, child }
    }

    /// What it answers to a path of its API; nothing while it starts.
    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut arguments = vec!["-sG".to_owned(), "--max-time".to_owned(), "10".to_owned()];
        for (name, value) in query {
            arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        arguments.push(format!("http://127.0.0.1:9090/api/v1/{path}"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = self.host.run("curl", &arguments);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// How many results an expression has, which has to be one.
    #[track_caller]
    fn results(&self, expression: &str) -> usize {
        let answer = self.ask("query", &[("query", expression)]);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().len()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.dir.join("prometheus.err")).unwrap_or_default()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces texts, each of which has to be there.
#[track_caller]
fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text.replace(from, to)
    })
}

/// The expressions of the dashboard, with what Grafana puts into them.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled = targets.map(|target| {
        assert_eq!(target["datasource"]["uid"], "${datasource}");
        let expression = target["expr"].as_str().unwrap();
        expression.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$job", "rfw")
    });
    filled.collect()
}

#[test]
fn a_prometheus_scrapes_takes_the_alerts_and_answers_the_dashboard() {
    let host = Host::new();
    let section = "[client monitor]\npassword = secret of monitor\nread = all";
    let rfw = host.rfw("iptables-nft").configure(section).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?list=tor");
    let prometheus = Prometheus::start(&host);
    let mut last = Value::Null;
    until(3 * SOON, "it has scraped", || {
        last = prometheus.ask("targets", &[]);
        let targets = last["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        if let Some(error) = targets.iter().map(|target| &target["lastError"]).find(|error| **error != "") {
            panic!("{error}\n{}", rfw.log());
        }
        targets.len() == 1 && targets[0]["health"] == "up"
    });
    is_answered(&prometheus, &rfw);
    let mut last = Value::Null;
    until(SOON, "all alerts are looked at", || {
        last = prometheus.ask("rules", &[]);
        let rules = last["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules.len() == RULES.matches("- alert: ").count() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let firing: Vec<&Value> = last["data"]["groups"][0]["rules"].as_array().unwrap().iter().collect();
    assert!(firing.iter().all(|rule| rule["state"] == "inactive"), "{last:#}\n{}", prometheus.log());
}

/// Each expression of the dashboard has results, once there are two scrapes.
#[track_caller]
fn is_answered(prometheus: &Prometheus<'_>, rfw: &Rfw<'_>) {
    let expressions = expressions();
    assert!(expressions.len() > 20, "{expressions:#?}");
    for expression in &expressions {
        until(SOON, expression, || prometheus.results(expression) > 0);
    }
    // What is told as a problem is none.
    let problems = prometheus.ask("query", &[("query", "sum(rfw_problem)")]);
    assert_eq!(problems["data"]["result"][0]["value"][1], "0", "{problems}\n{}", rfw.log());
    // The variables of the dashboard find the server.
    let names = prometheus.ask("label/instance/values", &[("match[]", "rfw_build_info{job=\"rfw\"}")]);
    assert_eq!(names["data"][0], "127.0.0.1:7393", "{names}");
}

#[test]
fn alerts_come_when_something_is_wrong_and_only_then() {
    let host = Host::new();
    host.write("rfw.rules.yml", 0o644, RULES);
    host.write("rfw.rules.test.yml", 0o644, RULES_TEST);
    host.run("promtool", &["check", "rules", "rfw.rules.yml"]).ok();
    host.run("promtool", &["test", "rules", "rfw.rules.test.yml"]).ok();
    for name in RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let comes = RULES_TEST.split(&format!("alertname: {name}\n")).nth(1);
        assert!(
            comes.is_some_and(|rest| rest.trim_start().starts_with("exp_alerts:\n")),
            "{name} is in no test"
        );
    }
}

/// What Grafana needs to take a file as a dashboard, and to draw each panel in a place of its own.
#[test]
fn the_dashboard_is_one_of_grafana() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36), "of Grafana 9 or newer");
    assert_eq!((&dashboard["title"], &dashboard["uid"]), (&"rfw".into(), &"rfw".into()));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    let mut taken = Vec::new();
    for (number, panel) in (1..).zip(dashboard["panels"].as_array().unwrap()) {
        assert_eq!(panel["id"], number);
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for cell in
            (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y)))
        {
            assert!(!taken.contains(&cell), "{} lies over another", panel["title"]);
            taken.push(cell);
        }
    }
}
