#!/usr/bin/env bash
# Logs to Azure Monitor, metrics to managed Prometheus, on a cluster that is there. Needs Azure.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh

az aks enable-addons --addons monitoring --name "$CLUSTER" --resource-group "$GROUP" --output none
az aks update --enable-azure-monitor-metrics --name "$CLUSTER" --resource-group "$GROUP" --output none

cat <<'VALUES'
metrics:
  podMonitor:
    enabled: true
    apiGroup: azmonitoring.coreos.com
    limits: { labelLimit: 63, labelNameLengthLimit: 511, labelValueLengthLimit: 1023 }
VALUES
