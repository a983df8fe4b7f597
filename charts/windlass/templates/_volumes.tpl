{{/* Where plugins, certificates and secrets come from. /plugins is always there: an empty folder where nothing is asked for. */}}
{{- define "windlass.volumes" -}}
- name: plugins
{{- with .Values.pluginsVolume }}
{{- if .configMap }}
  configMap: { name: {{ .configMap }} }
{{- else if .existingClaim }}
  persistentVolumeClaim: { claimName: {{ .existingClaim }}, readOnly: true }
{{- else if .azureFile.shareName }}
  csi:
    driver: file.csi.azure.com
    readOnly: true
    volumeAttributes:
      shareName: {{ .azureFile.shareName }}
      secretName: {{ .azureFile.secretName }}
      mountOptions: {{ .azureFile.mountOptions | quote }}
{{- else if .image.reference }}
  image: { reference: {{ .image.reference | quote }}, pullPolicy: {{ .image.pullPolicy }} }
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}
{{- if .Values.caBundle.configMap }}
- name: ca
  configMap: { name: {{ .Values.caBundle.configMap }} }
{{- end }}
{{- with .Values.secretsStore.secretProviderClass }}
- name: secrets-store
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes: { secretProviderClass: {{ . }} }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "windlass.mounts" -}}
- { name: plugins, mountPath: /plugins, readOnly: true }
{{- if .Values.caBundle.configMap }}
- { name: ca, mountPath: /etc/windlass-ca, readOnly: true }
{{- end }}
{{- if .Values.secretsStore.secretProviderClass }}
- { name: secrets-store, mountPath: /mnt/secrets-store, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
