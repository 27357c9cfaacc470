{{/* Names and labels. */}}

{{- define "broker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the longest suffix, "-dashboards", within 63 characters. */}}
{{- define "broker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "broker.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "broker.migrationName" -}}
{{- include "broker.fullname" . }}-migrate
{{- end -}}

{{- define "broker.serviceAccountName" -}}
{{- default (include "broker.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The Secret that holds every file, where the chart's own objects make it. */}}
{{- define "broker.secretName" -}}
{{- include "broker.fullname" . }}-secrets
{{- end -}}

{{/* Arguments: the root, and the component. */}}
{{- define "broker.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "broker.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "broker.labels" -}}
{{- $root := index . 0 -}}
{{ include "broker.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* The host that people and clients use: the one of settings.server.public_url. */}}
{{- define "broker.host" -}}
{{- (urlParse .Values.settings.server.public_url).host | splitList ":" | first -}}
{{- end -}}
