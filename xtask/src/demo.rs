//! `cargo xtask demo`: the main job, on real plugins, while as many of them as there are cores burn all the CPU they get.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::steps::{Steps, target_folder};
use crate::{Result, build, prepare};

/// Where health is, if nobody else is there.
const PORT: u16 = 8080;

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let seconds = match arguments {
        [] => None,
        [flag, seconds] if flag == "--seconds" => {
            Some(seconds.parse::<u64>().map_err(|_| format!("--seconds {seconds}: it must be a whole number"))?)
        }
        _ => return Err("demo takes nothing but --seconds N".to_owned()),
    };
    let mut steps = Steps::new(3);
    let target = prepare::run(&mut steps)?;
    build::host(&mut steps, &target)?;
    build::guests(&mut steps)?;
    serve(seconds)
}

/// Runs the demo for some seconds, and fails unless health answered with an entry for each plugin.
pub(crate) fn check(seconds: u64) -> Result<()> {
    serve(Some(seconds)).map(|_| ())
}

fn serve(seconds: Option<u64>) -> Result<ExitCode> {
    let port = free_port()?;
    let config = configure(port)?;
    let binary = build::host_binary();
    let mut host = Command::new(&binary)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let shown = wait_until_ready(&mut host, port).and_then(|()| show(port));
    if let Err(why) = shown {
        stop(&mut host);
        return Err(why);
    }
    match seconds {
        None => {
            eprintln!("ctrl-c ends it\n");
            let status = host.wait().map_err(|error| error.to_string())?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(seconds) => {
            std::thread::sleep(Duration::from_secs(seconds));
            let answered = show(port);
            stop(&mut host);
            answered.map(|()| ExitCode::SUCCESS)
        }
    }
}

fn free_port() -> Result<u16> {
    if TcpListener::bind(("127.0.0.1", PORT)).is_ok() {
        return Ok(PORT);
    }
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let port = free.map_err(|error| format!("no port is free: {error}"))?.port();
    eprintln!("port {PORT} is taken; health is on {port} this time");
    Ok(port)
}

/// The plugins of the demo by name: as many `primes` as there are cores.
fn plugins() -> Vec<(String, &'static str)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut plugins = vec![
        ("heartbeat".to_owned(), "source: file:heartbeat.wasm"),
        ("flaky".to_owned(), "source: file:flaky.wasm"),
        ("plain-wasi".to_owned(), "source: file:plain-wasi.wasm, every: 10s"),
    ];
    plugins.extend((1..=cores).map(|number| (format!("primes-{number}"), "source: file:primes.wasm")));
    plugins
}

fn configure(port: u16) -> Result<std::path::PathBuf> {
    let folder = target_folder().join("demo");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let into = folder.join("plugins");
    fs::create_dir_all(&into).map_err(failed)?;
    for name in build::PLUGINS_P2.iter().chain(&build::PLUGINS_P1) {
        let file = format!("{name}.wasm");
        fs::copy(build::guests_folder().join(&file), into.join(&file)).map_err(failed)?;
    }
    let mut text = format!("pluginsDir: plugins\nhealth: {{ listen: \"127.0.0.1:{port}\" }}\nplugins:\n");
    for (name, entry) in plugins() {
        text.push_str(&format!("  {name}: {{ {entry} }}\n"));
    }
    let path = folder.join("windlass.yaml");
    fs::write(&path, text).map_err(failed)?;
    Ok(path)
}

fn wait_until_ready(host: &mut Child, port: u16) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if let Ok(Some(status)) = host.try_wait() {
            return Err(format!("the host ended at once: {status}"));
        }
        if get(port, "/health/ready").is_ok_and(|(code, _)| code == 200) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the host was not ready within a minute".to_owned())
}

/// Prints where the report is and what it says, and checks that it has an entry for each plugin.
fn show(port: u16) -> Result<()> {
    let began = Instant::now();
    let (_, report) = get(port, "/health").map_err(|error| format!("/health: {error}"))?;
    let took = began.elapsed();
    eprintln!("\nhealth report: http://localhost:{port}/health (answered in {:.1} ms)", took.as_secs_f64() * 1000.0);
    eprintln!("  curl localhost:{port}/health");
    eprintln!("  curl localhost:{port}/health/plugins/flaky");
    for (name, _) in plugins() {
        if !report.contains(&format!("\"{name}\":")) {
            return Err(format!("the report has no entry for {name}: {report}"));
        }
    }
    eprintln!("  {} plugins are in it\n", plugins().len());
    Ok(())
}

fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, answer))
}

fn stop(host: &mut Child) {
    let asked = Command::new("kill").args(["-TERM", &host.id().to_string()]).status();
    let until = Instant::now() + Duration::from_secs(30);
    while asked.is_ok() && Instant::now() < until {
        if let Ok(Some(_)) = host.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It did not end when it was asked to: it must not be left behind.
    let _ = host.kill();
    let _ = host.wait();
}
