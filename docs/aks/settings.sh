#!/usr/bin/env bash
# Names that all scripts here share. Set your own in the environment: `LOCATION=westeurope REGISTRY=mine ./cluster.sh`.
# A registry's name is unique in all of Azure, and has neither dots nor dashes.
set -euo pipefail

export GROUP="${GROUP:-windlass}"
export LOCATION="${LOCATION:-swedencentral}"
export CLUSTER="${CLUSTER:-windlass}"
export REGISTRY="${REGISTRY:?set REGISTRY to the name of your container registry}"
export NAMESPACE="${NAMESPACE:-jobs}"
export RELEASE="${RELEASE:-windlass}"
# The host's version: image and chart are released under the same number.
export VERSION="${VERSION:-0.1.0}"
