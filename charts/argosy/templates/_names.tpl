{{/* Every name of the chart. Those in the release's namespace begin with the release's, those in the builds' namespace
     are fixed: that namespace is one farm's alone. */}}

{{- define "argosy.web" -}}{{ .Release.Name }}-web{{- end }}
{{- define "argosy.webSecrets" -}}{{ .Release.Name }}-web-secrets{{- end }}
{{- define "argosy.launchKey" -}}{{ .Values.web.launchKey.secret | default (printf "%s-launch-key" .Release.Name) }}{{- end }}
{{- define "argosy.ledger" -}}{{ .Release.Name }}-ledger{{- end }}
{{- define "argosy.ledgerSecret" -}}{{ .Values.ledger.secret | default (include "argosy.ledger" .) }}{{- end }}

{{- define "argosy.buildsNamespace" -}}
{{ .Values.builds.namespace | default (printf "%s-builds" .Release.Namespace) }}
{{- end }}
{{- define "argosy.catalogueNamespace" -}}
{{ .Values.catalogue.namespace | default (printf "%s-images" .Release.Namespace) }}
{{- end }}
{{- define "argosy.hubNamespace" -}}{{ .Values.hub.namespace | default .Release.Namespace }}{{- end }}

{{/* Admission policies are objects of the whole cluster. */}}
{{- define "argosy.admission" -}}{{ .Release.Namespace }}-{{ .Release.Name }}{{- end }}

{{- define "argosy.host" -}}{{ (urlParse .).hostname }}{{- end }}

{{/* Whether web needs a volume: state that no other place holds. */}}
{{- define "argosy.onSqlite" -}}
{{- if not (or .Values.ledger.url .Values.ledger.secret) }}yes{{ end }}
{{- end }}
{{- define "argosy.hasVolume" -}}
{{- if or (include "argosy.onSqlite" .) (not (or .Values.archive.url .Values.archive.claim)) }}yes{{ end }}
{{- end }}

{{- define "argosy.hasProviderToken" -}}
{{- if or .Values.providers.github.token .Values.providers.github.tokenSecret }}yes{{ end }}
{{- end }}
{{- define "argosy.hasRegistryRead" -}}
{{- if or .Values.registry.read.username .Values.registry.read.secret }}yes{{ end }}
{{- end }}
