{{/*
Every secret is a file in /etc/broker/secrets, wherever it comes from:
- existing: Secrets of the namespace, projected into one volume;
- externalSecrets: one Secret that an ExternalSecret makes;
- csi: one Secret that the Secrets Store CSI driver makes while the pod mounts its volume. Its own
  files belong to root, and the broker refuses secrets that everybody can read.
*/}}

{{/* The server's files, as YAML: name of the file -> {name, key}. */}}
{{- define "broker.serverSecrets" -}}
{{- $secrets := .Values.secrets -}}
{{- $files := dict -}}
{{- range $key := list "sealing" "signing" -}}
{{- if not (index $.Values.keys $key) -}}
{{- $files = set $files $key (index $secrets $key) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.database.kind "postgresql" -}}
{{- $files = set $files "database-url" $secrets.database -}}
{{- end -}}
{{- range $provider, $item := $secrets.oidc -}}
{{- $files = set $files (printf "oidc-%s" $provider) $item -}}
{{- end -}}
{{- range $name, $item := $secrets.files -}}
{{- $files = set $files (printf "file-%s" $name) $item -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{- define "broker.migrationSecrets" -}}
{{- dict "database-url" .Values.secrets.migration | toYaml -}}
{{- end -}}

{{/* Arguments: the root, the files, and the name of the Secret or class that the chart makes. */}}
{{- define "broker.secretVolumes" -}}
{{- $root := index . 0 -}}
{{- $files := index . 1 -}}
{{- $made := index . 2 -}}
- name: secrets
  projected:
    # Root's, and by fsGroup the broker's group's: what it accepts.
    defaultMode: 0440
    sources:
{{- if eq $root.Values.secrets.source "existing" }}
{{- range $file := keys $files | sortAlpha }}
{{- $item := index $files $file }}
      - secret:
          name: {{ $item.name | quote }}
          items:
            - {key: {{ default $file $item.key | quote }}, path: {{ $file | quote }}}
{{- end }}
{{- else }}
      - secret:
          name: {{ $made }}
          items:
{{- range $file := keys $files | sortAlpha }}
            - {key: {{ $file | quote }}, path: {{ $file | quote }}}
{{- end }}
{{- end }}
{{- if eq $root.Values.secrets.source "csi" }}
- name: secrets-store
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes:
      secretProviderClass: {{ $made }}
{{- end }}
{{- end -}}

{{- define "broker.secretMounts" -}}
- {name: secrets, mountPath: /etc/broker/secrets, readOnly: true}
{{- if eq .Values.secrets.source "csi" }}
# Mounted for the driver to make the Secret; the broker does not read it.
- {name: secrets-store, mountPath: /mnt/secrets-store, readOnly: true}
{{- end }}
{{- end -}}

{{/* Arguments: the root, the files, the name. */}}
{{- define "broker.externalSecretSpec" -}}
{{- $root := index . 0 -}}
{{- $files := index . 1 -}}
refreshInterval: {{ $root.Values.secrets.externalSecrets.refreshInterval | quote }}
secretStoreRef:
  kind: {{ $root.Values.secrets.externalSecrets.store.kind }}
  name: {{ $root.Values.secrets.externalSecrets.store.name | quote }}
target:
  name: {{ index . 2 }}
  creationPolicy: Owner
data:
{{- range $file := keys $files | sortAlpha }}
{{- $item := index $files $file }}
  - secretKey: {{ $file | quote }}
    remoteRef:
      key: {{ $item.name | quote }}
{{- if $item.key }}
      property: {{ $item.key | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Arguments: the root, the files, the name of the Secret. One object of the store, one entry. */}}
{{- define "broker.secretProviderClassSpec" -}}
{{- $root := index . 0 -}}
{{- $files := index . 1 -}}
{{- $objects := dict -}}
{{- range $file := keys $files | sortAlpha -}}
{{- $item := index $files $file -}}
{{- $object := default (dict "objectName" $item.name "objectType" $root.Values.secrets.csi.objectType) (index $objects $item.name) -}}
{{- if $item.key -}}
{{- $paths := append (default list $object.jmesPath) (dict "path" $item.key "objectAlias" $file) -}}
{{- $object = set $object "jmesPath" $paths -}}
{{- else -}}
{{- $object = set $object "objectAlias" $file -}}
{{- end -}}
{{- $objects = set $objects $item.name $object -}}
{{- end -}}
{{- $listed := list -}}
{{- range $index, $name := keys $objects | sortAlpha -}}
{{- $object := index $objects $name -}}
{{- if not $object.objectAlias -}}
{{- $object = set $object "objectAlias" (printf "whole-%d" $index) -}}
{{- end -}}
{{- $listed = append $listed $object -}}
{{- end -}}
provider: aws
parameters:
  objects: {{ toYaml $listed | quote }}
{{- if $root.Values.secrets.csi.region }}
  region: {{ $root.Values.secrets.csi.region | quote }}
{{- end }}
{{- if eq $root.Values.aws.identity "podIdentity" }}
  usePodIdentity: "true"
{{- end }}
secretObjects:
  - secretName: {{ index . 2 }}
    type: Opaque
    data:
{{- range $file := keys $files | sortAlpha }}
      - {objectName: {{ $file | quote }}, key: {{ $file | quote }}}
{{- end }}
{{- end -}}
