//! The page: what stands in it, and that a browser and a validator have nothing to say
//! against it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::machine::skip;
use super::{fatal, report};

/// A log of two days in which everything occurs.
fn log() -> String {
    let mut log = String::new();
    for index in 0..40_u64 {
        let time = 1_796_083_200 + index * 3600;
        let days = time / 86_400 - 1_796_083_200 / 86_400;
        let date = |time: u64| {
            let (hour, minute) = (time / 3600 % 24, time / 60 % 60);
            format!(
                "2026-12-{:02}T{hour:02}:{minute:02}:{:02}Z",
                1 + days,
                time % 60
            )
        };
        let client = format!(
            "client_name=x{index}.google.com, client_address=192.0.2.{index}, sender=a{index}x@<b>&c.example, recipient=r@here.example"
        );
        for (later, rest) in [
            (0, "action=greylist, reason=new, "),
            (10, "action=tarpit, reason=new, "),
            (400 + index * 7, "action=pass, reason=triplet found, "),
            (1300, "action=pass, reason=client AWL, "),
        ] {
            if index % 3 > 0 || later != 400 + index * 7 {
                log.push_str(&format!(
                    "{} mx postgrey[9]: {rest}{client}\n",
                    date(time + later)
                ));
            }
        }
    }
    log
}

/// Makes the page in a folder; its path.
fn make(folder: &Path) -> PathBuf {
    let db = folder.join("db");
    fs::create_dir(&db).unwrap();
    fatal::fill(&db);
    fs::write(folder.join("pools"), "google.com\n").unwrap();
    let options = format!(
        "--pool-domains={}\n--inet=1\n",
        folder.join("pools").display()
    );
    fs::write(db.join("postgrey.options"), options).unwrap();
    if super::machine::is_root() {
        // The database is read by its owner.
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        for path in [
            db.clone(),
            db.join("data.mdb"),
            db.join("lock.mdb"),
            db.join("postgrey.lock"),
            folder.to_owned(),
        ] {
            std::os::unix::fs::chown(path, Some(nobody.uid.as_raw()), None).unwrap();
        }
    }
    let page = folder.join("page.html");
    let word = format!("--html={}", page.display());
    // What was there before is replaced as a whole.
    fs::write(&page, "<!doctype html>".to_owned() + &"x".repeat(1 << 20)).unwrap();
    let said = report(&[&word, "--dbdir", db.to_str().unwrap()], log().as_bytes()).quiet();
    assert_eq!(said, "");
    page
}

/// The titles of the charts.
const TITLES: [&str; 4] = [
    "Requests over time",
    "How long mail waited",
    "What came back",
    "The database",
];

/// Checks that each chart has what is needed to know it without seeing it.
fn check_charts(text: &str) {
    let charts: Vec<&str> = text
        .split("<svg ")
        .skip(1)
        .map(|part| part.split("</svg>").next().unwrap())
        .collect();
    assert_eq!(charts.len(), 2 * TITLES.len());
    for (index, chart) in charts.iter().enumerate() {
        assert!(
            chart.contains("role=\"img\"") && chart.contains("aria-labelledby="),
            "{chart}"
        );
        let within = |tag: &str| {
            let start = chart.find(&format!("<{tag} ")).unwrap();
            let rest = &chart[start..];
            rest[rest.find('>').unwrap() + 1..rest.find(&format!("</{tag}>")).unwrap()].to_owned()
        };
        assert_eq!(within("title"), TITLES[index / 2]);
        assert!(
            within("desc").bytes().any(|octet| octet.is_ascii_digit()),
            "{chart}"
        );
        assert!(chart.matches("<text").count() >= 4, "{chart}");
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(make(folder.path())).unwrap();
    check_charts(&text);
    for word in [
        "<script", "src=", "@import", "url(", "http:", "https:", "onload",
    ] {
        assert!(!text.contains(word), "{word}");
    }
    assert_eq!(text.matches("href=").count(), 1, "the empty icon");
    // What a stranger sent stands there as text.
    assert!(
        text.contains("&lt;b&gt;&amp;c.example") && !text.contains("<b>"),
        "{text}"
    );
    // The numbers of the pictures.
    for part in [
        "<strong>146</strong> <span>requests</span>",
        "<i class=\"grey\"></i>greylisted 40</li>",
        "<th scope=\"row\">5 min to 10 min</th><td>",
        "<th scope=\"row\">1 h</th><td>100.0 %</td>",
        "google.com               # 40 triplets of 40 clients delayed",
        "<th scope=\"row\">within 1 h</th><td>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // To standard output, and beside a summary.
    let to_stdout = report(&["--html", "-"], log().as_bytes()).quiet();
    assert!(to_stdout.starts_with("<!DOCTYPE html>") && to_stdout.ends_with("</html>\n"));
    let other = folder.path().join("other.html");
    let word = format!("--html={}", other.display());
    let both = report(&[&word, "--summary", "--csv", "--by=day"], log().as_bytes()).quiet();
    assert!(both.starts_with("period,") && other.exists());
    // A log whose name stands in the wrong place stays as it is.
    let mail_log = folder.path().join("mail.log");
    fs::write(&mail_log, log()).unwrap();
    let said = report(&["--html", mail_log.to_str().unwrap()], b"").failed(2);
    assert!(
        said.ends_with("mail.log: it is no page, and is not replaced\n"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&mail_log).unwrap(), log());
    let empty = report(&["--html=-"], b"").quiet();
    assert!(empty.contains("no requests"));
    report(&["--html=/nonexistent/page.html"], b"").failed(2);
}

#[test]
fn a_page_of_any_log_is_of_bounded_size() {
    let line = |time: u64, client: u64| {
        format!(
            "{time} mx postgrey[9]: action=greylist, reason=new, client_address=10.{}.{}.1, sender=a{client}x@d{client}x.example, recipient=r@here.example\n",
            client / 256,
            client % 256
        )
    };
    let start = 1_796_083_200;
    let page = |words: &[&str], log: &str| {
        let page = report(&[&["--html=-"], words].concat(), log.as_bytes()).quiet();
        assert!(page.ends_with("</html>\n"));
        page
    };
    // Nothing, one request, two in two days.
    let empty = page(&[], "");
    assert!(!empty.contains("<svg ") && empty.contains("no requests"));
    for times in [&[start][..], &[start, start + 86_400]] {
        let log: String = times.iter().map(|&time| line(time, 1)).collect();
        let text = page(&[], &log);
        assert_eq!(text.matches("<svg ").count(), 2, "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    // Many clients and triplets.
    let log: String = (0..60_000)
        .map(|client| line(start + client / 10, client))
        .collect();
    let many = page(&[], &log);
    assert!(many.len() < 60_000, "{}", many.len());
    // Ten years of hours: the picture is no larger, and the numbers are there.
    let hours = 10 * 365 * 24;
    let log: String = (0..hours)
        .map(|hour| line(start - hour * 3600, 1))
        .collect();
    let years = page(&["--by=hour"], &log);
    let pictures: usize = years
        .split("<svg ")
        .skip(1)
        .map(|part| part.find("</svg>").unwrap())
        .sum();
    assert!(pictures < 400_000, "{pictures}");
    let marks = regex::Regex::new(r">\s*20(1[67]|2[0-6])-\d\d\s*</text>").unwrap();
    assert!(
        marks.find_iter(&years).count() >= 8,
        "years beside the months"
    );
    assert!(years.contains("the picture has the means of 110 each"));
    assert!(years.matches("<tr>").count() > hours as usize);
}

#[test]
fn a_validator_has_nothing_to_say() {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let jar = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(target)
        .join("vnu/node_modules/vnu-jar/build/dist/vnu.jar");
    let has_java = Command::new("java")
        .arg("-version")
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !jar.exists() || !has_java {
        return skip("vnu.jar", "validation of the page of postgreyreport");
    }
    let folder = tempfile::tempdir().unwrap();
    let page = make(folder.path());
    let check = |page: &Path| {
        let output = Command::new("java")
            .arg("-jar")
            .arg(&jar)
            .arg(page)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(check(&page), "");
    // It does say something against another one.
    let bad = fs::read_to_string(&page)
        .unwrap()
        .replacen("</svg>", "</p>", 1);
    fs::write(&page, bad).unwrap();
    assert!(check(&page).contains("error"));
}

/// A proxy that has two pages, and remembers what else is asked for.
fn serve(pages: Vec<(String, String)>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let remembered = Arc::clone(&asked);
    // It ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let line = answer(stream, &pages);
            remembered.lock().unwrap().extend(line);
        }
    });
    (port, asked)
}

fn answer(mut stream: TcpStream, pages: &[(String, String)]) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        line.clear();
    }
    let url = first.split(' ').nth(1)?.to_owned();
    let found = pages.iter().find(|(own, _)| *own == url);
    let (status, text) = found.map_or(("404 Not Found", ""), |(_, text)| ("200 OK", text));
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(text.as_bytes());
    Some(url)
}

/// What Chromium makes of a page, and what it says on its console.
fn browse(port: u16, url: &str) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args([
            "60",
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--disable-default-apps",
            "--disable-extensions",
            "--hide-scrollbars",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--proxy-server=127.0.0.1:{port}"))
        .args([
            "--proxy-bypass-list=<-loopback>",
            "--window-size=1100,900",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = said
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .map(str::to_owned)
        .collect();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        console,
    )
}

#[test]
fn a_browser_asks_for_nothing_and_complains_of_nothing() {
    if Command::new("chromium").arg("--version").output().is_err() {
        return skip("chromium", "the page of postgreyreport in a browser");
    }
    let folder = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(make(folder.path())).unwrap();
    let url = |name: &str| format!("http://page.example/{name}");
    // A page around it that says how wide it wants to be at 360.
    let frame = "<!DOCTYPE html><title>x</title><iframe src=\"page\" style=\"width:360px;height:4000px;border:0\" \
        onload=\"const d = this.contentDocument; document.title = 'wide ' + d.documentElement.scrollWidth + \
        ' shown ' + [...d.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0).map(s => s.getAttribute('class'))\"></iframe>";
    let bad = "<!DOCTYPE html><title>x</title><img src=\"missing.png\" alt=\"\"><script>console.error('trouble')</script>";
    let (port, asked) = serve(vec![
        (url("page"), page),
        (url("frame"), frame.into()),
        (url("bad"), bad.into()),
    ]);
    let (dom, console) = browse(port, &url("page"));
    check_charts(&dom);
    assert_eq!(console, Vec::<String>::new());
    // The browser asks its maker for updates, whatever the page.
    let is_of_page =
        |url: &String| !url.contains("google.com") && !url.contains("update.googleapis.com");
    let own = |asked: &Mutex<Vec<String>>| -> Vec<String> {
        let all = std::mem::take(&mut *asked.lock().unwrap());
        all.into_iter().filter(is_of_page).collect()
    };
    assert_eq!(own(&asked), [url("page")]);
    let (dom, _) = browse(port, &url("frame"));
    assert!(
        dom.contains("<title>wide 360 shown narrow,narrow,narrow,narrow</title>"),
        "{dom}"
    );
    own(&asked);
    // Both would be noticed.
    let (_, console) = browse(port, &url("bad"));
    assert!(
        console.iter().any(|line| line.contains("trouble")),
        "{console:?}"
    );
    assert!(own(&asked).contains(&url("missing.png")));
}
