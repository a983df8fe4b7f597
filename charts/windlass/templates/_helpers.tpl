{{/* Names and labels. */}}
{{- define "windlass.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "windlass.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "windlass.selectorLabels" -}}
app.kubernetes.io/name: {{ include "windlass.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "windlass.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "windlass.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "windlass.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "windlass.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "windlass.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* windlass.yaml: what the values say, and the few things that are the chart's. */}}
{{- define "windlass.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "pluginsDir" "/plugins" -}}
{{- $_ := set $config "dataDir" "/data" -}}
{{- if .Values.extraConfigMaps -}}
{{- $_ := set $config "configDir" "/etc/windlass/conf.d" -}}
{{- end -}}
{{- $health := deepCopy (default dict (get $config "health")) -}}
{{- $_ := set $health "listen" "0.0.0.0:8080" -}}
{{- $_ := set $config "health" $health -}}
{{- with .Values.defaults -}}
{{- $_ := set $config "defaults" . -}}
{{- end -}}
{{- $_ := set $config "plugins" .Values.plugins -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The grace period: what runs in flight may take, and ten seconds for what comes after. */}}
{{- define "windlass.graceSeconds" -}}
{{- $drain := 25 -}}
{{- if hasKey .Values.config "drainSeconds" -}}
{{- $drain = .Values.config.drainSeconds -}}
{{- end -}}
{{- add (ceil $drain) 10 -}}
{{- end -}}

{{- define "windlass.probe" -}}
httpGet: { path: {{ .path }}, port: health }
initialDelaySeconds: {{ .initialDelaySeconds }}
periodSeconds: {{ .periodSeconds }}
timeoutSeconds: {{ .timeoutSeconds }}
failureThreshold: {{ .failureThreshold }}
{{- end -}}

{{/* A Kubernetes quantity in bytes; 0 for nothing. */}}
{{- define "windlass.bytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)$" $text -}}
{{- $number := float64 (trimSuffix $unit $text) -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- printf "%.0f" (mulf $number (get $units $unit)) -}}
{{- end -}}
