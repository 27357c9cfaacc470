{{/* What every pod of this chart has in common. */}}

{{- define "broker.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "broker.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
# The group that mounted secrets belong to.
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "broker.securityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Where a pod may run, and who pulls its image. */}}
{{- define "broker.placement" -}}
# The cluster's own token is for nobody here: EKS mounts the one for AWS by itself.
automountServiceAccountToken: false
# A Service named broker would put BROKER_PORT into the environment, where settings are read.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "broker.env" -}}
- {name: BROKER_CONFIG, value: /etc/broker/broker.toml}
{{- if .Values.database.ca.configMap }}
# asyncpg reads the roots of ssl=verify-full from here.
- {name: PGSSLROOTCERT, value: /etc/broker/database-ca/ca.crt}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "broker.commonMounts" -}}
- {name: config, mountPath: /etc/broker/broker.toml, subPath: broker.toml, readOnly: true}
{{ include "broker.secretMounts" . }}
{{- if .Values.database.ca.configMap }}
- {name: database-ca, mountPath: /etc/broker/database-ca, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "broker.commonVolumes" -}}
{{- if .Values.database.ca.configMap }}
- name: database-ca
  configMap:
    name: {{ .Values.database.ca.configMap | quote }}
    items:
      - {key: {{ .Values.database.ca.key | quote }}, path: ca.crt}
{{- end }}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 32Mi}
{{- end -}}
