{{/* Pieces of network policies. An `ipBlock` with `except` is the only way to say "not there". */}}

{{- define "argosy.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{- define "argosy.ports" -}}
{{- range . }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}

{{/* The API server: as values say, or as the cluster does. */}}
{{- define "argosy.apiServer" -}}
{{- $addresses := .Values.networkPolicy.apiServer }}
{{- if not $addresses }}
{{- range (lookup "v1" "Endpoints" "default" "kubernetes").subsets }}
{{- range .addresses }}
{{- $addresses = append $addresses (printf "%s/%s" .ip (contains ":" .ip | ternary "128" "32")) }}
{{- end }}
{{- end }}
{{- end }}
- to:
    {{- range $addresses }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports: {{- include "argosy.ports" .Values.networkPolicy.apiServerPorts | nindent 4 }}
{{- end }}

{{/* Everywhere but the metadata services. */}}
{{- define "argosy.anywhere" -}}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: {{ .Values.networkPolicy.never | toJson }}}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::/32"]}
{{- end }}

{{/* The internet: neither private ranges nor metadata services. */}}
{{- define "argosy.internet" -}}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: {{ concat .Values.networkPolicy.never .Values.networkPolicy.private | toJson }}}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10", "fc00::/7"]}
  ports: {{- include "argosy.ports" .Values.networkPolicy.internetPorts | nindent 4 }}
{{- end }}

{{/* Private places that builds need: the registry, a mirror of packages. */}}
{{- define "argosy.buildsReach" -}}
{{- range .Values.networkPolicy.buildsReach }}
- to:
    - ipBlock: {cidr: {{ .cidr }}}
  ports: {{- include "argosy.ports" .ports | nindent 4 }}
{{- end }}
{{- end }}
