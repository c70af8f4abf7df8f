//! The page of a plan, used in a browser: Debian's `chromium`, over its debugging pipe.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rlx_aot::lir;
use rlx_aot::mir::{Binary, Builder, Output, Reduction, Role, Unary};
use rlx_aot::report::Report;
use rlx_aot::types::{DType, Type};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const BROWSER: &str = "chromium";
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars --window-size=1200,900";
/// A name that ends the element that it is in, and runs, where it is not escaped.
const HOSTILE: &str = "</script><script>window.broken = 1</script><img src=x onerror=alert(1)>";

/// A browser with one page.
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    sent: u64,
    /// What happened apart from answers.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let line = format!(
            "exec {BROWSER} {FLAGS} --user-data-dir='{}' --remote-debugging-pipe about:blank 3<&0 4>&1 >/dev/null 2>&1 </dev/null",
            profile.path().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (commands, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (to, messages) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut message = vec![];
            while from.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                if to.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            child,
            commands,
            messages,
            session: String::new(),
            sent: 0,
            events: vec![],
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The result of a command.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let message = self.messages.recv_timeout(Duration::from_secs(30)).unwrap();
            if message["id"] == json!(self.sent) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn text(&mut self, id: &str) -> String {
        let text = self.evaluate(&format!("document.getElementById('{id}').textContent"));
        text.as_str().unwrap().to_owned()
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        for _ in 0..200 {
            if self.evaluate("document.readyState + !!document.querySelector('#panel > *')")
                == json!("completetrue")
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{url} is not shown");
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let params =
            json!({ "type": kind, "x": x, "y": y, "button": "none", "pointerType": "mouse" });
        self.call("Input.dispatchMouseEvent", params);
    }

    fn key(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { "\r" } else { "" };
            let params =
                json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// How many different colours a screenshot has.
    fn colours(&mut self) -> usize {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let shot = decoded(shot["data"].as_str().unwrap());
        let mut reader = png::Decoder::new(std::io::Cursor::new(shot)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert!(info.width >= 300 && info.height >= 300, "{info:?}");
        let size = info.color_type.samples();
        let pixels = pixels[..info.buffer_size()].chunks_exact(size);
        pixels.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// No error was printed, nothing thrown, and nothing but files asked for.
    fn quiet(&self) {
        for event in &self.events {
            let (method, params) = (event["method"].as_str().unwrap_or(""), &event["params"]);
            let bad = match method {
                "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled" => true,
                "Page.javascriptDialogOpening" => true,
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap();
                    !url.starts_with("file:") && !url.starts_with("data:")
                }
                _ => false,
            };
            assert!(!bad, "{event:#}");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// A chain of `length` steps with wide results, and a sum.
fn page(name: &str, length: usize, dims: [usize; 2]) -> String {
    let mut mir = Builder::new(name);
    let x = mir.input("x", Role::Input, Type::new(DType::F32, dims));
    let mut y = x;
    for i in 0..length {
        mir.set_origin(&format!("layer.{i}"));
        let sum = mir.reduce(Reduction::Max, y, &[1]);
        let wide = mir.broadcast(sum, dims);
        let next = mir.binary(Binary::Add, y, wide);
        y = mir.unary(Unary::Exp, next);
    }
    let outputs = if length > 0 { vec![Output { name: name.into(), value: y }] } else { vec![] };
    let module = lir::lower(&mir.finish(outputs), lir::Options::default()).unwrap();
    Report::new(&module, None).html()
}

#[test]
fn hovers_searches_and_draws() {
    if !Command::new(BROWSER).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return eprintln!("skipped: this needs {BROWSER}");
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("file://{}", path.display())
    };
    let mut browser = Browser::start();
    browser.open(&write("plan.html", page(HOSTILE, 40, [16, 64])));
    assert_eq!(browser.evaluate("typeof window.broken + document.images.length"), "undefined0");
    assert!(browser.text("facts").contains("rlx-aot-plan/1"));

    // In the middle of the chart's lowest box, which is the input.
    let place = browser.evaluate(
        "(() => { document.getElementById('stage').scrollIntoView(); const b = document.getElementById('arena').getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height - 165]; })()",
    );
    let (x, y) = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    browser.mouse("mouseMoved", x, y);
    let tip = browser.text("tip");
    assert!(tip.starts_with("x (b") && tip.contains("f32[16, 64], input"), "{tip}");
    assert_eq!(browser.evaluate("document.getElementById('tip').hidden"), false);

    browser.evaluate("document.getElementById('search').focus()");
    browser.call("Input.insertText", json!({ "text": "LAYER.17" }));
    assert!(browser.text("matches").ends_with(" found"), "{}", browser.text("matches"));
    browser.key("Enter", 13);
    assert!(browser.text("matches").starts_with("1 of "), "{}", browser.text("matches"));
    assert!(browser.text("details").contains("written by"), "{}", browser.text("details"));
    assert!(browser.colours() > 50, "the picture is blank");

    // The chart by keys, a table by a click on its tab and one on a column.
    browser.evaluate("document.getElementById('arena').focus()");
    browser.key("ArrowRight", 39);
    assert!(browser.text("details").contains(" live, "), "{}", browser.text("details"));
    browser.evaluate("document.getElementById('tab-2').click()");
    browser.evaluate("document.querySelector('#panel th button').click()");
    assert_eq!(browser.evaluate("document.querySelector('#panel th').ariaSort"), "ascending");
    assert_eq!(browser.evaluate("document.querySelector('#panel td').textContent"), "s0");

    // Nothing, nothing in it, and thousands of steps; dark, as narrow as a telephone.
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.call("Emulation.setEmulatedMedia", dark);
    let narrow = json!({ "width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", narrow);
    for (name, length, dims) in [("none", 0, [4, 4]), ("zero", 1, [0, 4]), ("long", 1500, [4, 4])] {
        browser.open(&write(&format!("{name}.html"), page(name, length, dims)));
        let wide = browser.evaluate("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= 390, "{name}: {wide}");
        assert!(browser.colours() > 20, "{name}: the picture is blank");
    }
    browser.quiet();
}

/// A block that widens an image and makes it narrow again, added to what the runs before have left.
fn block() -> Value {
    let weights = |name: &str, shape: [usize; 4]| {
        let count: usize = shape.iter().product();
        json!({ "name": name, "shape": shape, "data": vec![0.5; count] })
    };
    let conv = |x: &str, w: &str, y: &str, attributes: Value| json!({ "op": "Conv", "inputs": [x, w], "outputs": [y], "attributes": attributes });
    json!({
        "format": "rlx-aot/1", "name": "block",
        "inputs": [{ "name": "x", "shape": [1, 6, 37, 29] }, { "name": "sum", "shape": [1, 6, 37, 29] }],
        "parameters": [
            weights("a", [48, 6, 1, 1]), weights("b", [48, 1, 3, 3]), weights("c", [6, 48, 1, 1]),
        ],
        "nodes": [
            conv("x", "a", "wide", json!({})),
            conv("wide", "b", "deep", json!({ "group": 48, "pads": [1, 1, 1, 1] })),
            conv("deep", "c", "narrow", json!({})),
            { "op": "Add", "inputs": ["sum", "narrow"], "outputs": ["sum1"] },
        ],
        "outputs": ["sum1"],
    })
}

/// Two memories, each with its own chart; a state; steps in bands, found by their nodes' names.
#[test]
fn memories_states_and_bands() {
    if !Command::new(BROWSER).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return eprintln!("skipped: this needs {BROWSER}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("block.json"), block().to_string()).unwrap();
    let plan = ["plan", "block.json", "--html", "plan.html", "--state", "sum=sum1"];
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot"))
        .args([&plan[..], &["--region", "fast=24K", "--max-arena", "120K"]].concat())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut browser = Browser::start();
    browser.open(&format!("file://{}", folder.path().join("plan.html").display()));

    // The state is alive always, and both an input and an output.
    browser.evaluate("document.getElementById('search').focus()");
    browser.call("Input.insertText", json!({ "text": "sum" }));
    browser.key("Enter", 13);
    let details = browser.text("details");
    assert!(details.contains("state") && details.contains("always"), "{details}");
    assert!(browser.text("h-arena").contains("arena over time"), "{}", browser.text("h-arena"));
    let arena = browser.colours();

    // The other memory by its button, with boxes of its own under the mouse.
    let buttons = browser
        .evaluate("[...document.querySelectorAll('#regions button')].map((b) => b.textContent)");
    assert_eq!(buttons.as_array().unwrap().len(), 2, "{buttons}");
    assert!(buttons[1].as_str().unwrap().contains("fast"), "{buttons}");
    browser.evaluate("document.querySelectorAll('#regions button')[1].click()");
    assert!(browser.text("h-arena").contains("fast over time"), "{}", browser.text("h-arena"));
    let found = browser.evaluate(
        "(() => { document.getElementById('stage').scrollIntoView(); const b = document.getElementById('arena').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()",
    );
    let [x, y, width, height] = [0, 1, 2, 3].map(|i| found[i].as_f64().unwrap());
    let mut tips = std::collections::BTreeSet::new();
    for column in 1..40 {
        for row in 1..12 {
            browser.mouse(
                "mouseMoved",
                x + width * f64::from(column) / 40.0,
                y + height * f64::from(row) / 12.0,
            );
            let tip = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent";
            tips.insert(browser.evaluate(tip).as_str().unwrap().to_owned());
        }
    }
    let temporaries = tips.iter().filter(|tip| tip.contains("temporary"));
    assert!(temporaries.count() > 0, "{tips:?}");
    assert!(!tips.iter().any(|tip| tip.contains(", state") || tip.contains(", input")), "{tips:?}");
    assert!(browser.colours() > 20 && arena > 20, "a picture is blank");

    // A node that is computed in bands is found as often as it has steps.
    browser.evaluate("document.getElementById('search').value = ''");
    browser.evaluate("document.getElementById('search').focus()");
    browser.call("Input.insertText", json!({ "text": "deep" }));
    let matches = browser.text("matches");
    let count: u32 = matches.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 2, "{matches}");
    browser.key("Enter", 13);
    assert!(browser.text("details").contains("deep"), "{}", browser.text("details"));
    browser.quiet();
}
