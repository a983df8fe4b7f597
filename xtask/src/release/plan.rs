//! What a release consists of: its stages in order, and what is uploaded where by which command. Pure, so that the integration tests can hold
//! the workflow against it.

/// A stage and what it does: `cargo xtask release NAME`.
pub(crate) const STAGES: [(&str, &str); 8] = [
    ("versions", "one version in Cargo.toml, chart, Dockerfile, guides and CHANGELOG.md"),
    ("binary", "the static binary, looked into: machine, no interpreter, version"),
    ("sbom", "what it is made of, as CycloneDX"),
    ("archive", "binary, licence and SBOM in an archive that is the same whenever it is made"),
    ("image", "the files of the image"),
    ("chart", "the package of the chart"),
    ("sums", "sums of all files, to be signed"),
    ("publish", "the release's text, and the list of what is uploaded where"),
];

/// Something that leaves the machine.
pub(crate) struct Upload {
    /// What it is.
    pub(crate) what: &'static str,
    /// Where it goes. `VERSION` stands for the version.
    pub(crate) to: &'static str,
    /// The command that does it, as the workflow has it.
    pub(crate) by: &'static str,
}

/// All that leaves it, in order.
pub(crate) const UPLOADS: [Upload; 8] = [
    Upload {
        what: "the image of one architecture",
        to: "ghcr.io/windlass-run/windlass:VERSION-ARCH",
        by: "docker buildx build --push",
    },
    Upload {
        what: "the image of both",
        to: "ghcr.io/windlass-run/windlass:VERSION",
        by: "docker buildx imagetools create",
    },
    Upload { what: "its signature, keyless", to: "beside the image, and Rekor", by: "cosign sign --yes --recursive" },
    Upload { what: "its SBOM, signed", to: "beside the image, and Rekor", by: "cosign attest --yes" },
    Upload { what: "the chart", to: "oci://ghcr.io/windlass-run/charts/windlass:VERSION", by: "helm push" },
    Upload { what: "its signature, keyless", to: "beside the chart, and Rekor", by: "cosign sign --yes" },
    Upload {
        what: "a signature over the sums, keyless",
        to: "SHA256SUMS.sigstore.json, and Rekor",
        by: "cosign sign-blob --yes",
    },
    Upload {
        what: "archives, chart, SBOMs, sums and signature",
        to: "the release vVERSION of the repository",
        by: "gh release create",
    },
];

/// The architectures that are released: Rust's target, and the name that images have for it.
pub(crate) const TARGETS: [(&str, &str); 2] =
    [("x86_64-unknown-linux-musl", "amd64"), ("aarch64-unknown-linux-musl", "arm64")];
