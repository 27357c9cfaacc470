{{/* What one value means for another, beyond the schema: each fault in one line with its cure. */}}

{{- define "broker.checks" -}}
{{- $v := .Values -}}
{{- $faults := list -}}
{{- if lt (int $v.shutdown.gracePeriodSeconds) (int (add $v.shutdown.preStopSeconds 40)) -}}
{{- $faults = append $faults "shutdown.gracePeriodSeconds must exceed preStopSeconds by 40: requests in flight get 25 s, and then the log is written" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- $faults = append $faults "autoscaling.maxReplicas is below minReplicas" -}}
{{- end -}}
{{- $providers := list -}}
{{- range default list $v.settings.oidc -}}
{{- $providers = append $providers .name -}}
{{- end -}}
{{- range $name, $_ := $v.secrets.oidc -}}
{{- if not (has $name $providers) -}}
{{- $faults = append $faults (printf "secrets.oidc.%s: settings.oidc has no provider of that name" $name) -}}
{{- end -}}
{{- end -}}
{{- if eq $v.database.kind "postgresql" -}}
{{- $audit := default dict $v.settings.audit -}}
{{- range default list $audit.sinks -}}
{{- if eq .kind "file" -}}
{{- $faults = append $faults (printf "settings.audit.sinks: %s writes to a file, and pods have no volume; write to stdout, which the node collects" .name) -}}
{{- end -}}
{{- end -}}
{{- range default list $audit.checkpoint_copies -}}
{{- if not (hasPrefix "s3://" .) -}}
{{- $faults = append $faults (printf "settings.audit.checkpoint_copies: %s is in the pod, which goes; write s3://BUCKET/PREFIX" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.database.kind "postgresql") $v.migration.enabled $v.migration.appRole -}}
{{- if and (eq $v.secrets.database.name $v.secrets.migration.name) (eq (default "" $v.secrets.database.key) (default "" $v.secrets.migration.key)) -}}
{{- $faults = append $faults "secrets.migration is secrets.database: the tables' owner and migration.appRole must be two roles, or the server may change its own log" -}}
{{- end -}}
{{- end -}}
{{- if $v.networkPolicy.enabled -}}
{{- $policy := $v.networkPolicy -}}
{{- if and (eq $v.database.kind "postgresql") (not $policy.egress.database.peers) -}}
{{- $faults = append $faults "networkPolicy.egress.database.peers is empty: name where PostgreSQL is, such as [{cidr: 10.0.20.0/24}]" -}}
{{- end -}}
{{- range $name := list "idp" "sts" -}}
{{- if and (not (index $policy.egress $name).peers) (not $policy.egress.allowInternet) -}}
{{- $faults = append $faults (printf "networkPolicy.egress.%s.peers is empty: name the addresses, or set networkPolicy.egress.allowInternet" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (or $v.ingress.enabled $v.httpRoute.enabled) (not $policy.ingress.controller) -}}
{{- $faults = append $faults "networkPolicy.ingress.controller is empty: name the pods or addresses of what forwards requests to the broker" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $policy.ingress.prometheus) -}}
{{- $faults = append $faults "networkPolicy.ingress.prometheus is empty: name Prometheus' pods" -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n- %s" (join "\n- " $faults)) -}}
{{- end -}}
{{- end -}}
