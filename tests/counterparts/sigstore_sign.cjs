// Signs an artifact with Sigstore's own libraries, as cosign 3 does with a key: a DSSE bundle, attached to the artifact as its referrer.
//
// node sigstore_sign.cjs KEY.pem HOST/REPO sha256:DIGEST      prints the bundle

const crypto = require('node:crypto');
const fs = require('node:fs');

const { bundleToJSON } = require('@sigstore/bundle');
const { attachArtifactToImage } = require('@sigstore/oci');
const { DSSEBundleBuilder } = require('@sigstore/sign');

const [keyFile, imageName, imageDigest] = process.argv.slice(2);
const privateKey = crypto.createPrivateKey(fs.readFileSync(keyFile));
const signer = {
  sign: async (data) => ({
    signature: crypto.sign('sha256', data, privateKey),
    key: { $case: 'publicKey', publicKey: '', hint: 'test' },
  }),
};
const statement = {
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ digest: { sha256: imageDigest.replace('sha256:', '') } }],
  predicateType: 'https://sigstore.dev/cosign/sign/v1',
  predicate: {},
};

async function main() {
  const builder = new DSSEBundleBuilder({ signer, witnesses: [] });
  const artifact = { data: Buffer.from(JSON.stringify(statement)), type: 'application/vnd.in-toto+json' };
  const bundle = bundleToJSON(await builder.create(artifact));
  const bytes = Buffer.from(JSON.stringify(bundle));
  await attachArtifactToImage({ imageName, imageDigest, mediaType: bundle.mediaType, artifact: bytes });
  console.log(bytes.toString());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
