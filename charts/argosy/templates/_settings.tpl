{{/* Values as settings of Argosy: variables and texts, as YAML. */}}

{{/* Bytes of a size such as 2Gi. */}}
{{- define "argosy.bytes" -}}
{{- $factor := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (. | trunc (int (sub (len .) 2)) | int64) (get $factor (. | substr (int (sub (len .) 2)) (len .))) -}}
{{- end }}

{{/* What web and steps share. */}}
{{- define "argosy.settings" -}}
{{- $limits := .Values.limits -}}
ARGOSY_ENGINE: argo
ARGOSY_BUILDS_NAMESPACE: {{ include "argosy.buildsNamespace" . }}
ARGOSY_CATALOGUE_NAMESPACE: {{ include "argosy.catalogueNamespace" . }}
ARGOSY_IMAGE_PREFIX: {{ .Values.registry.prefix | quote }}
ARGOSY_IMAGE_STORE: registry
ARGOSY_REGISTRY_INSECURE: {{ .Values.registry.insecure | quote }}
ARGOSY_COMPRESSION: {{ .Values.registry.compression }}
{{- with .Values.images.foundation }}
ARGOSY_FOUNDATION_IMAGE: {{ . }}
{{- end }}
ARGOSY_GITHUB_HOSTNAME: {{ .Values.providers.github.hostname }}
{{- with .Values.providers.github.apiUrl }}
ARGOSY_GITHUB_API_URL: {{ . | quote }}
{{- end }}
ARGOSY_GIT_PROTOCOLS: {{ .Values.providers.git.protocols | toJson | quote }}
ARGOSY_BUILD_MEMORY_BYTES: {{ include "argosy.bytes" $limits.build.memory | quote }}
ARGOSY_BUILD_CPUS: {{ $limits.build.cpus | quote }}
ARGOSY_BUILD_TIMEOUT_SECONDS: {{ $limits.buildSeconds | int64 | quote }}
ARGOSY_SILENT_SECONDS: {{ $limits.silentSeconds | int64 | quote }}
ARGOSY_FETCH_TIMEOUT_SECONDS: {{ $limits.fetchSeconds | int64 | quote }}
ARGOSY_MAX_SOURCE_BYTES: {{ include "argosy.bytes" $limits.source | quote }}
ARGOSY_MAX_IMAGE_BYTES: {{ include "argosy.bytes" $limits.image | quote }}
ARGOSY_WHEEL_CACHE: "false"
{{- with .Values.builds.indexUrl }}
ARGOSY_INDEX_URL: {{ . | quote }}
{{- end }}
ARGOSY_SCAN_POLICY: {{ .Values.scan.policy | quote }}
ARGOSY_SCAN_SEVERITY: {{ .Values.scan.severity }}
ARGOSY_SCAN_ONLY_FIXABLE: {{ .Values.scan.onlyFixable | quote }}
ARGOSY_GRYPE_DB_MAX_AGE_HOURS: {{ .Values.scan.database.maxAgeHours | quote }}
{{- if .Values.scan.database.claim }}
ARGOSY_GRYPE_DB: /run/grype-db
{{- end }}
{{- range $name, $value := .Values.settings }}
ARGOSY_{{ upper $name }}: {{ (kindIs "slice" $value) | ternary (toJson $value) ($value | toString) | quote }}
{{- end }}
{{- end }}

{{/* What web has beside that. */}}
{{- define "argosy.webSettings" -}}
ARGOSY_STATE: /var/lib/argosy
ARGOSY_HOST: 0.0.0.0
ARGOSY_PORT: "8585"
ARGOSY_PUBLIC_URL: {{ .Values.web.publicUrl | quote }}
ARGOSY_WORKFLOW_TEMPLATE: {{ include "argosy.templateName" . }}
ARGOSY_HUB_URL: {{ .Values.hub.url | quote }}
ARGOSY_HUB_API_URL: {{ .Values.hub.apiUrl | quote }}
ARGOSY_PARALLEL_BUILDS: {{ .Values.limits.builds | int64 | quote }}
ARGOSY_PARALLEL_BUILDS_PER_OWNER: {{ .Values.limits.buildsPerOwner | int64 | quote }}
ARGOSY_PARALLEL_BUILDS_PER_NETWORK: {{ .Values.limits.buildsPerNetwork | int64 | quote }}
ARGOSY_QUEUE_TIMEOUT_SECONDS: {{ .Values.limits.queueSeconds | int64 | quote }}
ARGOSY_START_TIMEOUT_SECONDS: {{ .Values.limits.startSeconds | int64 | quote }}
{{- with .Values.argo.uiUrl }}
ARGOSY_ARGO_UI_URL: {{ . | quote }}
{{- end }}
{{- with .Values.archive.url }}
ARGOSY_ARCHIVE_URL: {{ . | quote }}
{{- end }}
{{- if or .Values.providers.github.token .Values.providers.github.tokenSecret }}
ARGOSY_GITHUB_TOKEN_FILE: /run/secrets/argosy/provider-token/token
{{- end }}
{{- if or .Values.registry.read.username .Values.registry.read.secret }}
ARGOSY_REGISTRY_AUTH_FILE: /run/secrets/argosy/registry-read/auth.json
{{- end }}
{{- end }}
