//! The files of a release: archives that are the same whenever they are made, their sums, and a signature that is tried out.

use std::fs;
use std::path::Path;

use super::{commit_time, file_name};
use crate::Result;
use crate::steps::{self, command, root};

/// What lies beside the binary in an archive.
const BESIDE: [&str; 4] = ["LICENSE", "README.md", "CHANGELOG.md", "windlass.example.yaml"];
const SUMS: &str = "SHA256SUMS";

fn at(path: &Path) -> String {
    path.display().to_string()
}

/// Packs binary, SBOM and what belongs to them: twice, since both must have the same bytes.
pub(super) fn archive(dist: &Path, stem: &str, binary: &Path, sbom: &Path) -> Result<String> {
    let folder = dist.join(stem);
    let _ = fs::remove_dir_all(&folder);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    fs::copy(binary, folder.join("windlass")).map_err(|error| format!("{}: {error}", binary.display()))?;
    fs::copy(sbom, folder.join("windlass.cdx.json")).map_err(|error| format!("{}: {error}", sbom.display()))?;
    for name in BESIDE {
        fs::copy(root().join(name), folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    let time = format!("--mtime=@{}", commit_time()?);
    let pack = |to: &Path| {
        let order =
            ["--sort=name", &time, "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX", "--format=ustar"];
        let mut pack = command("tar", &order);
        pack.args(["--use-compress-program=gzip -n", "-cf", &at(to), "-C", &at(dist), stem]);
        steps::output(pack).map(|_| ())
    };
    let (archive, again) = (dist.join(format!("{stem}.tar.gz")), dist.join("again"));
    pack(&archive)?;
    pack(&again)?;
    let is_same = fs::read(&archive).map_err(failed)? == fs::read(&again).map_err(failed)?;
    fs::remove_file(&again).map_err(failed)?;
    fs::remove_dir_all(&folder).map_err(failed)?;
    if is_same {
        Ok(format!("archive: {}", file_name(&archive)))
    } else {
        Err("two archives of the same differ".to_owned())
    }
}

/// Writes the sums of all files, and checks them once.
pub(super) fn sums(dist: &Path) -> Result<String> {
    let entries = fs::read_dir(dist).map_err(|error| format!("{}: {error}", dist.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| file_name(&entry.path()))
        .filter(|name| !name.starts_with(SUMS) && name != "NOTES.md")
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("{} holds nothing to sum up", dist.display()));
    }
    let mut sum = command("sha256sum", &[]);
    sum.args(&names).current_dir(dist);
    let file = dist.join(SUMS);
    fs::write(&file, steps::output(sum)?).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut check = command("sha256sum", &["--check", "--strict", SUMS]);
    check.current_dir(dist);
    steps::output(check)?;
    Ok(format!("sums: of {}", names.join(", ")))
}

/// Signs the sums with a key that nobody keeps, in the form that cosign gives a blob's signature; verifies it, and sees that changed sums are
/// refused. The release itself is signed without a key, by the workflow's identity.
pub(super) fn sign_and_throw_away(dist: &Path) -> Result<String> {
    let (key, public, signature, changed) =
        (dist.join("key.pem"), dist.join("key.pub"), dist.join("sums.sig"), dist.join("changed"));
    let sums = dist.join(SUMS);
    let openssl = |arguments: &[&str]| steps::output(command("openssl", arguments)).map(|_| ());
    let outcome = (|| {
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &at(&key)])?;
        openssl(&["pkey", "-in", &at(&key), "-pubout", "-out", &at(&public)])?;
        openssl(&["dgst", "-sha256", "-sign", &at(&key), "-out", &at(&signature), &at(&sums)])?;
        let verify = |file: &Path| {
            openssl(&["dgst", "-sha256", "-verify", &at(&public), "-signature", &at(&signature), &at(file)])
        };
        verify(&sums)?;
        let text = fs::read_to_string(&sums).map_err(|error| format!("{}: {error}", sums.display()))?;
        fs::write(&changed, text + "\n").map_err(|error| format!("{}: {error}", changed.display()))?;
        if verify(&changed).is_ok() { Err("a signature over other sums is taken".to_owned()) } else { Ok(()) }
    })();
    for file in [&key, &public, &signature, &changed] {
        // Some were not made if an earlier step failed.
        let _ = fs::remove_file(file);
    }
    outcome.map(|()| "sums signed with a key thrown away, verified, and refused when changed".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn sums_and_signature_are_of_all_files() {
        let folder = std::env::temp_dir().join(format!("windlass-release-{}", std::process::id()));
        fs::create_dir_all(folder.join("image-amd64")).unwrap();
        assert!(sums(&folder).unwrap_err().contains("nothing"));
        for name in ["b.tgz", "a.tar.gz", "NOTES.md"] {
            fs::write(folder.join(name), name).unwrap();
        }
        assert_eq!(sums(&folder).unwrap(), "sums: of a.tar.gz, b.tgz");
        let text = fs::read_to_string(folder.join(SUMS)).unwrap();
        assert_eq!(text.lines().count(), 2);
        // Again: its own sums are not among them.
        assert_eq!(sums(&folder).unwrap(), "sums: of a.tar.gz, b.tgz");
        sign_and_throw_away(&folder).unwrap();
        assert!(!folder.join("key.pem").exists() && !folder.join("sums.sig").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
