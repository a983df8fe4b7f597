{{/* What a schema cannot say in words that help. */}}
{{- define "windlass.checks" -}}
{{- $twice := "two hosts would each run every schedule" -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- fail (printf "replicaCount: %d is refused: %s" (int .Values.replicaCount) $twice) -}}
{{- end -}}
{{- with .Values.strategy -}}
{{- if ne (toString .type) "Recreate" -}}
{{- fail (printf "strategy: %s is refused: while the pods overlap, %s" (toString .type) $twice) -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- fail (printf "autoscaling is refused: %s" $twice) -}}
{{- end -}}
{{- end -}}

{{- if and (eq (trimSuffix "/" .Values.livenessProbe.path) "/health") (not .Values.livenessProbe.acceptPodRestart) -}}
{{- fail "livenessProbe.path: /health would restart all plugins for one that is sick: use /health/live, or set livenessProbe.acceptPodRestart" -}}
{{- end -}}

{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- if $limit -}}
{{- $most := include "windlass.bytes" $limit | float64 -}}
{{- $plugins := merge (dict "defaults" .Values.defaults) (dict) -}}
{{- range $name, $plugin := .Values.plugins -}}
{{- $_ := set $plugins (printf "plugins.%s" $name) (default dict $plugin) -}}
{{- end -}}
{{- range $name, $plugin := $plugins -}}
{{- $memory := dig "limits" "memory" "" $plugin -}}
{{- if and $memory (gt (include "windlass.bytes" $memory | float64) $most) -}}
{{- fail (printf "%s.limits.memory: %v is more than the whole pod has (resources.limits.memory: %v)" $name $memory $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $sources := list -}}
{{- with .Values.pluginsVolume -}}
{{- if .configMap -}}{{- $sources = append $sources "configMap" -}}{{- end -}}
{{- if .existingClaim -}}{{- $sources = append $sources "existingClaim" -}}{{- end -}}
{{- if .azureFile.shareName -}}{{- $sources = append $sources "azureFile" -}}{{- end -}}
{{- if .image.reference -}}{{- $sources = append $sources "image" -}}{{- end -}}
{{- if .initContainer.image -}}{{- $sources = append $sources "initContainer" -}}{{- end -}}
{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "pluginsVolume: %s: only one of them can be at /plugins" (join " and " $sources)) -}}
{{- end -}}
{{- if and .Values.pluginsVolume.azureFile.shareName (not .Values.pluginsVolume.azureFile.secretName) -}}
{{- fail "pluginsVolume.azureFile.secretName: the share's account and key are needed" -}}
{{- end -}}
{{- if and .Values.workloadIdentity.enabled (not (include "windlass.serviceAccountName" .)) -}}
{{- fail "workloadIdentity.enabled needs a ServiceAccount: set serviceAccount.create, or serviceAccount.name" -}}
{{- end -}}
{{- end -}}
