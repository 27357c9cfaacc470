{{/* TOML, since toToml writes every whole number as a float. Keys are the schema's, hence bare. */}}

{{- define "broker.tomlValue" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key := keys . | sortAlpha -}}
{{- $pairs = append $pairs (printf "%s = %s" $key (include "broker.tomlValue" (index $ $key))) -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "broker.tomlValue" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "string" . -}}
{{- toJson . -}}
{{- else if kindIs "bool" . -}}
{{- . -}}
{{- else if eq (floor .) (float64 .) -}}
{{- int64 . -}}
{{- else -}}
{{- float64 . -}}
{{- end -}}
{{- end -}}

{{/* Sections in their order, each a map or a list of maps. */}}
{{- define "broker.toml" -}}
{{- $sections := . -}}
{{- range $name := keys $sections | sortAlpha -}}
{{- $section := index $sections $name -}}
{{- $tables := ternary $section (list $section) (kindIs "slice" $section) -}}
{{- range $table := $tables }}
{{ if kindIs "slice" $section }}[[{{ $name }}]]{{ else }}[{{ $name }}]{{ end }}
{{- range $key := keys $table | sortAlpha }}
{{ $key }} = {{ include "broker.tomlValue" (index $table $key) }}
{{- end }}
{{ end -}}
{{- end -}}
{{- end -}}

{{/* The settings of the server: what the values say, and what the chart decides. */}}
{{- define "broker.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- $server := merge (dict "host" .Values.listenOn "port" 8080 "metrics_port" 9090) $settings.server -}}
{{- $url := dict "url_file" "/etc/broker/secrets/database-url" -}}
{{- if eq .Values.database.kind "sqlite" -}}
{{- $url = dict "url" "sqlite+aiosqlite:////var/lib/broker/broker.db" -}}
{{- end -}}
{{- $database := merge $url (default dict $settings.database) -}}
{{- $keys := dict "sealing" (default "file:/etc/broker/secrets/sealing" .Values.keys.sealing) -}}
{{- $keys = set $keys "signing" (default "file:/etc/broker/secrets/signing" .Values.keys.signing) -}}
{{- $oidc := list -}}
{{- range $provider := default list $settings.oidc -}}
{{- if hasKey $.Values.secrets.oidc $provider.name -}}
{{- $provider = merge (dict "client_secret_file" (printf "/etc/broker/secrets/oidc-%s" $provider.name)) $provider -}}
{{- end -}}
{{- $oidc = append $oidc $provider -}}
{{- end -}}
{{- $all := merge (dict "server" $server "database" $database "keys" $keys) $settings -}}
{{- if $oidc -}}
{{- $all = set $all "oidc" $oidc -}}
{{- end -}}
{{- range $name, $section := $all -}}
{{- if not $section -}}
{{- $all = unset $all $name -}}
{{- end -}}
{{- end -}}
{{- include "broker.toml" $all | trim -}}
{{- end -}}

{{/* Those of the migration: the database, and nothing that another secret is needed for. */}}
{{- define "broker.migrationSettings" -}}
{{- $database := dict "url_file" "/etc/broker/secrets/database-url" -}}
{{- include "broker.toml" (dict "database" $database) | trim -}}
{{- end -}}
