"""Pushes and pulls with the client of the ORAS project: what tests hold `windlass push` and `windlass pull` against.

oras_client.py push HOST/REPO:TAG FILE      in the folder of the file
oras_client.py pull HOST/REPO:TAG FOLDER    prints the path of what came
"""

import sys

import oras.client

act, reference, what = sys.argv[1:]
client = oras.client.OrasClient(hostname=reference.split("/")[0], insecure=True)
if act == "push":
    client.push(target=reference, files=[what])
else:
    print("\n".join(client.pull(target=reference, outdir=what)))
