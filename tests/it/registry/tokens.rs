//! How often tokens are asked for: once by all who need the same one, anew shortly before they expire, and anew when they are withdrawn.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use windlass_tests::{Host, Scene, guest};

use super::fake::{Fake, Proxy, Request, respond, serve_wasm};
use super::secure::certificates;

/// What Azure grants at present.
#[derive(Default)]
struct Grants {
    /// The number of the refresh token that the exchange gives, and that is taken.
    refresh: AtomicU32,
    /// The same of the token that opens a repository.
    access: AtomicU32,
    /// How long that one lives, by its own words, in seconds.
    life: AtomicU32,
}

/// A token that says how long it lives.
fn jwt(name: &str, number: u32, life: u32) -> String {
    use base64::Engine as _;
    let payload = format!(r#"{{"jti":"{name}-{number}","iat":1000,"exp":{}}}"#, 1_000 + life);
    format!("e30.{}.hunter2", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload))
}

impl Grants {
    fn refresh(&self) -> String {
        jwt("refresh", self.refresh.load(Ordering::Relaxed), 10_800)
    }

    fn access(&self) -> String {
        jwt("access", self.access.load(Ordering::Relaxed), self.life.load(Ordering::Relaxed))
    }

    /// Azure's directory and a registry of it as one server.
    fn answer(&self, request: &Request, wasm: &[u8]) -> Vec<u8> {
        let asks = |path: &str| request.head.starts_with(&format!("POST {path} "));
        let json = |name: &str, token: &str| respond("200 OK", "", format!(r#"{{"{name}":"{token}"}}"#).as_bytes());
        if asks("/tenant-1/oauth2/v2.0/token") {
            return json("access_token", "directory");
        }
        if asks("/oauth2/exchange") {
            return json("refresh_token", &self.refresh());
        }
        if asks("/oauth2/token") {
            return match request.body.contains(&self.refresh()) {
                true => json("access_token", &self.access()),
                false => respond("401 Unauthorized", "", b""),
            };
        }
        if request.head.contains(&format!("Bearer {}\r", self.access())) {
            return serve_wasm(request, wasm);
        }
        let challenge =
            "www-authenticate: Bearer realm=\"https://jobs.azurecr.io/oauth2/token\",service=\"jobs.azurecr.io\"\r\n";
        respond("401 Unauthorized", challenge, b"")
    }
}

/// A host with plugins of four repositories in one registry of Azure's, each asked for again every second.
struct Azure {
    grants: Arc<Grants>,
    fake: Fake,
    host: Host,
    _proxy: Proxy,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Azure {
    fn start(life: u32) -> Azure {
        let scene = Scene::new();
        let folder = scene.path().to_owned();
        certificates(&folder);
        fs::write(folder.join("token"), "assertion").unwrap();
        let grants = Arc::new(Grants { life: life.into(), ..Grants::default() });
        let (told, wasm) = (grants.clone(), guest("succeeds"));
        let fake = Fake::start_secure(&folder, move |request| told.answer(request, &wasm));
        let proxy = Proxy::to(&fake.address);
        let entry = |name: &str| {
            format!("  {name}: {{ source: \"oci://jobs.azurecr.io/{name}:1\", every: 100ms, refreshSeconds: 1 }}\n")
        };
        let config = scene.configure(&format!("plugins:\n{}", NAMES.map(entry).concat()));
        let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        let path = |name: &str| folder.join(name).display().to_string();
        let (ca, token, through) = (path("ca.pem"), path("token"), format!("http://{}", proxy.address));
        let environment = [
            ("SSL_CERT_FILE", ca.as_str()),
            ("HTTPS_PROXY", &through),
            ("DOCKER_CONFIG", "/nonexistent"),
            ("AZURE_FEDERATED_TOKEN_FILE", &token),
            ("AZURE_CLIENT_ID", "client-1"),
            ("AZURE_TENANT_ID", "tenant-1"),
            ("AZURE_AUTHORITY_HOST", "https://login.example.com/"),
        ];
        let host = Host::start_with(scene, &arguments, &environment);
        for name in NAMES {
            host.wait_for_run(name);
        }
        Azure { grants, fake, host, _proxy: proxy }
    }

    /// How many requests began so.
    fn asked(&self, beginning: &str) -> usize {
        self.fake.requests().iter().filter(|request| request.head.starts_with(beginning)).count()
    }

    /// Of the directory, the exchange, and for tokens.
    fn logins(&self) -> [usize; 3] {
        ["POST /tenant-1/", "POST /oauth2/exchange ", "POST /oauth2/token "].map(|path| self.asked(path))
    }

    /// Waits until each plugin's tag was asked for so many times more.
    fn wait_for_refreshes(&self, more: usize) {
        let heads = || NAMES.map(|name| self.asked(&format!("HEAD /v2/{name}/manifests/1 ")));
        let before = heads();
        self.host.wait_for("a", |_| heads().iter().zip(before).all(|(now, before)| *now >= before + more));
    }

    fn all_is_well(&self) {
        self.host.wait_for("a", |_| self.host.json("/health")["entries"]["windlass"]["status"] == "Healthy");
        for name in NAMES {
            let plugin = self.host.plugin(name);
            assert_eq!((&plugin["status"], &plugin["version"]["number"]), (&"Healthy".into(), &1.into()), "{plugin:#}");
        }
    }
}

#[test]
fn four_plugins_share_one_exchange_and_refreshes_need_none() {
    let azure = Azure::start(4_500);
    assert_eq!(azure.logins(), [1, 1, 4], "one exchange for all, one token for each repository");
    azure.wait_for_refreshes(3);
    assert_eq!(azure.logins(), [1, 1, 4], "a refresh is one request");
    azure.all_is_well();

    // What opened the repositories is withdrawn: each asks for another, by what the exchange gave.
    azure.grants.access.fetch_add(1, Ordering::Relaxed);
    azure.wait_for_refreshes(3);
    assert_eq!(azure.logins(), [1, 1, 8]);
    azure.all_is_well();

    // That is withdrawn as well: all begins anew, once for all, and nobody is any the worse for it.
    azure.grants.refresh.fetch_add(1, Ordering::Relaxed);
    azure.grants.access.fetch_add(1, Ordering::Relaxed);
    azure.wait_for_refreshes(3);
    let [directory, exchange, tokens] = azure.logins();
    // Each repository asked with the old one or with what another had fetched meanwhile.
    assert!([directory, exchange] == [2, 2] && (12..=16).contains(&tokens), "{:?}", azure.logins());
    azure.all_is_well();
}

#[test]
fn a_token_is_asked_for_anew_before_it_expires() {
    // Kept for nine tenths of two seconds.
    let azure = Azure::start(2);
    azure.wait_for_refreshes(6);
    let [directory, exchange, tokens] = azure.logins();
    assert_eq!([directory, exchange], [1, 1]);
    assert!(tokens >= 8, "{tokens} for four repositories in six seconds");
    azure.all_is_well();
}
