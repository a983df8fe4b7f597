//! TLS by a private CA, a proxy, logins, and Azure's exchange of identities; and that no token or password is ever seen.

use std::fs;
use std::path::Path;

use windlass_tests::{Host, Scene, binary, guest};

use super::base64;
use super::fake::{Fake, Proxy, Request, respond, serve_wasm};
use super::real::{Registry, openssl};

/// `user:hunter2`, as htpasswd keeps it.
const HTPASSWD: &str = "user:$2b$04$Lr5IeLjmTOGocaAyFQj04u.3Iwh/jAKA5xhR5aEVys2KF8Mcpjxze\n";

/// Makes a CA, and a certificate of it for the names that tests use.
pub fn certificates(folder: &Path) {
    let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=windlass-test-ca"];
    openssl(folder, &[&ca[..], &p256].concat());
    fs::write(
        folder.join("names"),
        "subjectAltName=DNS:jobs.azurecr.io,DNS:login.example.com,DNS:registry.example.com,IP:127.0.0.2\n",
    )
    .unwrap();
    let request = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=windlass-test"];
    openssl(folder, &[&request[..], &p256[..5]].concat());
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ],
    );
}

/// Runs a command with the private CA, the proxy, and more of an environment.
fn windlass(folder: &Path, proxy: &Proxy, more: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .env("SSL_CERT_FILE", folder.join("ca.pem"))
        .env("HTTPS_PROXY", format!("http://{}", proxy.address))
        .env("HOME", folder)
        .env_remove("SSL_CERT_DIR")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs(more.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn a_registry_behind_a_private_ca_a_proxy_and_a_password() {
    let scene = Scene::new().guest("succeeds");
    let folder = scene.path();
    certificates(folder);
    fs::write(folder.join("htpasswd"), HTPASSWD).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let http = format!("  tls: {{ certificate: {}, key: {} }}\n", at("server.pem"), at("server.key"));
    let top = format!("auth:\n  htpasswd: {{ realm: test, path: {} }}\n", at("htpasswd"));
    let Some(registry) = Registry::start_with(tempfile::tempdir().unwrap(), "127.0.0.1:0", &http, &top) else { return };
    let proxy = Proxy::to(&registry.address);

    // Nobody's login: on Azure it says whose identity is missing.
    let (code, text) = windlass(folder, &proxy, &[], &["pull", "oci://jobs.azurecr.io/report:1"]);
    assert_eq!(code, 1, "{text}");
    for part in
        ["jobs.azurecr.io answers 401", "the node's identity may pull images", "workload identity", "pull secret"]
    {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(proxy.asked.lock().unwrap().first().unwrap(), "jobs.azurecr.io:443");
    let (_, text) = windlass(folder, &proxy, &[], &["pull", "oci://registry.example.com/report:1"]);
    assert!(text.contains("401") && !text.contains("node's identity"), "{text}");

    // A wrong password, and a helper.
    let wrong = format!(r#"{{"auths":{{"registry.example.com":{{"auth":"{}"}}}}}}"#, base64(b"user:hunter3"));
    fs::write(folder.join("config.json"), wrong).unwrap();
    let config = folder.display().to_string();
    let docker = [("DOCKER_CONFIG", config.as_str()), ("WINDLASS_LOG", "trace")];
    let push = ["push", "plugins/succeeds.wasm", "oci://registry.example.com/report:1"];
    let (code, text) = windlass(folder, &proxy, &docker, &push);
    assert!(code == 1 && text.contains("answers 401") && !text.contains("hunter3"), "{text}");
    fs::write(folder.join("config.json"), r#"{"credsStore":"desktop"}"#).unwrap();
    let (_, text) = windlass(folder, &proxy, &docker, &push);
    assert!(
        text.contains("401") && text.contains("credential helper desktop, and helpers are not supported"),
        "{text}"
    );

    // The right one, as Kubernetes mounts it.
    fs::remove_file(folder.join("config.json")).unwrap();
    let right = format!(r#"{{"auths":{{"https://registry.example.com":{{"auth":"{}"}}}}}}"#, base64(b"user:hunter2"));
    fs::write(folder.join(".dockerconfigjson"), right).unwrap();
    let (code, text) = windlass(folder, &proxy, &docker, &push);
    assert!(code == 0 && text.contains("@sha256:") && !text.contains("hunter2"), "{text}");
    let (code, text) = windlass(folder, &proxy, &docker, &["pull", "oci://registry.example.com/report:1"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(folder.join("report.wasm")).unwrap(), guest("succeeds"));

    // Who is not to be asked through the proxy is not; and nobody is trusted by default.
    let direct = [docker[0], ("NO_PROXY", "registry.example.com")];
    let (code, text) = windlass(folder, &proxy, &direct, &["pull", "oci://registry.example.com/report:1"]);
    assert!(code == 1 && text.contains("cannot be reached"), "{text}");
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "x.key",
            "-out",
            "x.pem",
            "-subj",
            "/CN=x",
        ],
    );
    let other = at("x.pem");
    let stranger = [docker[0], ("SSL_CERT_FILE", other.as_str())];
    let (code, text) = windlass(folder, &proxy, &stranger, &["pull", "oci://registry.example.com/report:1"]);
    assert!(code == 1 && text.contains("UnknownIssuer") && text.contains("SSL_CERT_FILE"), "{text}");
    let nobody = [docker[0], ("SSL_CERT_FILE", "/none.pem")];
    let (code, text) = windlass(folder, &proxy, &nobody, &["pull", "oci://registry.example.com/report:1"]);
    assert!(code == 1 && text.contains("no certificates to trust") && text.contains("SSL_CERT_FILE"), "{text}");
}

/// Azure's directory and registry, as one server: each step takes the token of the step before.
fn azure(request: &Request, wasm: &[u8]) -> Vec<u8> {
    let asks = |path: &str| request.head.starts_with(&format!("POST {path} "));
    let has = |fields: &[&str]| fields.iter().all(|field| request.body.contains(field));
    let json = |body: &str| respond("200 OK", "content-type: application/json\r\n", body.as_bytes());
    let denied = || respond("400 Bad Request", "", br#"{"error":"invalid_request hunter2-assertion"}"#);
    if asks("/tenant-1/oauth2/v2.0/token") {
        let good = has(&[
            "client_assertion=hunter2-assertion",
            "client_id=client-1",
            "grant_type=client_credentials",
            "scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default",
        ]);
        return if good { json(r#"{"access_token":"hunter2-directory"}"#) } else { denied() };
    }
    if asks("/oauth2/exchange") {
        let good = has(&[
            "access_token=hunter2-directory",
            "grant_type=access_token",
            "service=jobs.azurecr.io",
            "tenant=tenant-1",
        ]);
        return if good { json(r#"{"refresh_token":"hunter2-refresh"}"#) } else { denied() };
    }
    if asks("/oauth2/token") {
        let good = has(&["refresh_token=hunter2-refresh", "scope=repository%3Areport%3Apull"]);
        return if good { json(r#"{"access_token":"hunter2-access"}"#) } else { denied() };
    }
    if request.head.contains("Bearer hunter2-access") {
        return serve_wasm(request, wasm);
    }
    let challenge =
        "www-authenticate: Bearer realm=\"https://jobs.azurecr.io/oauth2/token\",service=\"jobs.azurecr.io\"\r\n";
    respond("401 Unauthorized", challenge, b"")
}

#[test]
fn a_pod_with_workload_identity_pulls_from_azure() {
    let scene = Scene::new();
    let folder = scene.path().to_owned();
    certificates(&folder);
    fs::write(folder.join("token"), "hunter2-assertion\n").unwrap();
    let wasm = guest("succeeds");
    let fake = Fake::start_secure(&folder, move |request| azure(request, &wasm));
    let proxy = Proxy::to(&fake.address);
    let config = scene.configure("plugins:\n  job: { source: \"oci://jobs.azurecr.io/report:1\", every: 100ms }\n");
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    let (ca, through) = (folder.join("ca.pem").display().to_string(), format!("http://{}", proxy.address));
    let token = folder.join("token").display().to_string();
    let environment = [
        ("SSL_CERT_FILE", ca.as_str()),
        ("HTTPS_PROXY", &through),
        ("AZURE_FEDERATED_TOKEN_FILE", &token),
        ("AZURE_CLIENT_ID", "client-1"),
        ("AZURE_TENANT_ID", "tenant-1"),
        ("AZURE_AUTHORITY_HOST", "https://login.example.com/"),
        ("WINDLASS_LOG", "trace"),
    ];
    let mut host = Host::start_with(scene, &arguments, &environment);
    host.wait_for_run("job");
    let lines = format!("{:?}", host.lines());
    assert!(lines.contains("fetched from a registry") && !lines.contains("hunter2"), "a token is in the log");
    let hosts = proxy.asked.lock().unwrap().clone();
    assert!(hosts.contains(&"login.example.com:443".to_owned()), "{hosts:?}");

    // A federated credential that is not set up, and no answer's words repeated.
    fs::write(folder.join("token"), "hunter2-other").unwrap();
    let (code, text) = windlass(&folder, &proxy, &environment[2..], &["pull", "oci://jobs.azurecr.io/report:1"]);
    assert!(code == 1 && text.contains("federated credential") && text.contains("400"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    drop(host);
}

#[test]
fn a_token_is_fetched_with_the_login_and_never_in_the_clear() {
    let wasm = guest("succeeds");
    let fake = Fake::start(|_| Vec::new());
    let realm = format!("http://{}/token", fake.address);
    fake.change(move |request| {
        if request.head.starts_with("GET /token?service=s&scope=repository%3Aa%3Apull ") {
            let good = request
                .head
                .to_lowercase()
                .contains(&format!("authorization: basic {}", base64(b"user:hunter2")).to_lowercase());
            return if good {
                respond("200 OK", "", br#"{"token":"t1"}"#)
            } else {
                respond("401 Unauthorized", "", b"")
            };
        }
        if request.head.contains("Bearer t1") {
            return serve_wasm(request, &wasm);
        }
        respond("401 Unauthorized", &format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n"), b"")
    });
    let scene = Scene::new();
    let folder = scene.path();
    let login = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"hunter2"}}}}}}"#, fake.address);
    fs::write(folder.join("config.json"), login).unwrap();
    let proxy = Proxy::to("127.0.0.1:1");
    let config = folder.display().to_string();
    let docker = [("DOCKER_CONFIG", config.as_str())];
    let (code, text) = windlass(folder, &proxy, &docker, &["pull", &fake.at("a:1")]);
    assert_eq!(code, 0, "{text}");
    assert!(proxy.asked.lock().unwrap().is_empty(), "this machine is not asked through a proxy");

    fake.change(|_| {
        respond(
            "401 Unauthorized",
            "www-authenticate: Bearer realm=\"http://example.com/token\",service=\"s\"\r\n",
            b"",
        )
    });
    let (code, text) = windlass(folder, &proxy, &docker, &["pull", &fake.at("a:1")]);
    assert!(code == 1 && text.contains("in the clear") && !text.contains("hunter2"), "{text}");
}
