{{/* Rules of network policies. No rule is ever written with an empty list, which would mean everybody. */}}

{{/* A list of peers, of which there is one at least. */}}
{{- define "broker.peers" -}}
{{- range . }}
{{- if .cidr }}
- ipBlock:
    cidr: {{ .cidr | quote }}
{{- with .except }}
    except: {{- toYaml . | nindent 6 }}
{{- end }}
{{- else }}
-
{{- with .namespaceLabels }}
  namespaceSelector:
    matchLabels: {{- toYaml . | nindent 6 }}
{{- end }}
{{- with .podLabels }}
  podSelector:
    matchLabels: {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* {peers, ports}: one rule over TCP, or none. */}}
{{- define "broker.egressRule" -}}
{{- if .peers }}
- to: {{- include "broker.peers" .peers | trim | nindent 4 }}
  ports:
{{- range .ports }}
    - {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "broker.dnsRule" -}}
{{- if .peers }}
- to: {{- include "broker.peers" .peers | trim | nindent 4 }}
  ports:
{{- range .ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The node's Pod Identity agent, which link-local addresses stand for. */}}
{{- define "broker.podIdentityRule" -}}
- to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: "fd00:ec2::23/128"}
  ports:
    - {protocol: TCP, port: 80}
{{- end -}}

{{/* Everything that is public, over https: neither this network nor the node's metadata. */}}
{{- define "broker.internetRule" -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    - ipBlock:
        cidr: "::/0"
        except: ["::1/128", "fc00::/7", "fe80::/10"]
  ports:
    - {protocol: TCP, port: 443}
{{- end -}}
