{{/* Values that are missing or contradict each other: all of them at once, each with what to write instead. */}}

{{- define "argosy.checks" -}}
{{- $faults := concat (include "argosy.missing" . | fromYamlArray) (include "argosy.contradictions" . | fromYamlArray) }}
{{- if $faults }}{{ fail (printf "\n\n- %s\n" (join "\n- " $faults)) }}{{ end }}
{{- end }}

{{- define "argosy.missing" -}}
{{- $required := list
  (dict "value" .Values.images.web "say" "images.web: the image that `make images` made for web")
  (dict "value" .Values.images.steps "say" "images.steps: the image that `make images` made for the steps")
  (dict "value" .Values.web.publicUrl "say" "web.publicUrl: web's address as visitors see it, such as https://argosy.example.org")
  (dict "value" .Values.registry.prefix "say" "registry.prefix: what stands before every image's name, such as registry.example.org/argosy/")
  (dict "value" .Values.hub.url "say" "hub.url: the Hub as visitors see it, such as https://hub.example.org/")
  (dict "value" .Values.hub.apiUrl "say" "hub.apiUrl: the Hub's REST API as web reaches it, such as http://hub.jupyterhub:8081/hub/api/")
  (dict "value" (or .Values.hub.token .Values.hub.tokenSecret) "say" "hub.tokenSecret: a Secret with the key hub-token, or hub.token: web's token at the Hub")
}}
{{- range $required }}
{{- if not .value }}
- {{ printf "Set %s." .say | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{- define "argosy.contradictions" -}}
{{- $faults := list }}
{{- $replicas := .Values.web.replicas }}
{{- if and .Values.ledger.url .Values.ledger.secret }}
{{- $faults = append $faults "ledger.url and ledger.secret name two ledgers. Set one of them." }}
{{- end }}
{{- if and .Values.hub.token .Values.hub.tokenSecret }}
{{- $faults = append $faults "hub.token and hub.tokenSecret name two tokens. Set one of them." }}
{{- end }}
{{- if and .Values.providers.github.token .Values.providers.github.tokenSecret }}
{{- $faults = append $faults "providers.github.token and providers.github.tokenSecret name two tokens. Set one of them." }}
{{- end }}
{{- range $use := list "read" "write" "staging" }}
{{- $given := index $.Values.registry $use }}
{{- if and $given.username $given.secret }}
{{- $faults = append $faults (printf "registry.%s.username and registry.%s.secret name two users. Set one of them." $use $use) }}
{{- end }}
{{- if ne (empty $given.username) (empty $given.password) }}
{{- $faults = append $faults (printf "registry.%s has a user without a password, or a password without a user. Set both." $use) }}
{{- end }}
{{- end }}
{{- if and (include "argosy.onSqlite" .) (gt (int $replicas) 1) }}
{{- $faults = append $faults "SQLite serves one replica. Set ledger.secret (or ledger.url) to a PostgreSQL database, or web.replicas to 1." }}
{{- end }}
{{- if and (include "argosy.onSqlite" .) .Values.web.autoscaling.enabled }}
{{- $faults = append $faults "SQLite serves one replica. Set ledger.secret (or ledger.url) to a PostgreSQL database, or web.autoscaling.enabled to false." }}
{{- end }}
{{- if and .Values.archive.url .Values.archive.claim }}
{{- $faults = append $faults "archive.url and archive.claim name two archives. Set one of them." }}
{{- end }}
{{- if and (not (or .Values.archive.url .Values.archive.claim)) (not (include "argosy.onSqlite" .)) (or (gt (int $replicas) 1) .Values.web.autoscaling.enabled) }}
{{- $faults = append $faults "A folder in one replica's volume is no archive for several. Set archive.url, such as s3://bucket/argosy, or archive.claim." }}
{{- end }}
{{- if and .Values.web.autoscaling.enabled (lt (int .Values.web.autoscaling.maxReplicas) (int $replicas)) }}
{{- $faults = append $faults "web.autoscaling.maxReplicas is less than web.replicas. Set it to as many or more." }}
{{- end }}
{{- if and .Values.web.publicUrl (eq (include "argosy.host" .Values.web.publicUrl) (include "argosy.host" .Values.hub.url)) (not .Values.hub.subdomains) }}
{{- $faults = append $faults "web.publicUrl and hub.url have one host name, so a notebook's JavaScript would share web's origin. Give the Hub a host name of its own, or set JupyterHub.subdomain_host and hub.subdomains to true." }}
{{- end }}
{{- if and (ne .Values.scan.policy "off") (not .Values.scan.database.download) (not .Values.scan.database.claim) }}
{{- $faults = append $faults (printf "Under scan.policy %s without a database nothing is found, or every image refused. Set scan.database.claim, or scan.database.download to true, or scan.policy to \"off\"." .Values.scan.policy) }}
{{- end }}
{{- if and (eq .Values.builds.isolation "sandbox") (not .Values.builds.runtimeClassName) }}
{{- $faults = append $faults "builds.isolation sandbox means a kernel of its own. Set builds.runtimeClassName to gVisor's, Kata's or another such class." }}
{{- end }}
{{- if and (eq .Values.builds.isolation "userns") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) }}
{{- $faults = append $faults (printf "Kubernetes %s takes no notice of hostUsers. Set builds.isolation to sandbox or nested, or upgrade to 1.33." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and .Values.web.httpRoute.enabled (not .Values.web.httpRoute.parents) }}
{{- $faults = append $faults "An HTTPRoute hangs on a Gateway. Set web.httpRoute.parents." }}
{{- end }}
{{- $namespaces := list .Release.Namespace (include "argosy.buildsNamespace" .) (include "argosy.catalogueNamespace" .) }}
{{- if ne (len $namespaces) (len (uniq $namespaces)) }}
{{- $faults = append $faults "Web, builds and catalogue need a namespace each. Set builds.namespace and catalogue.namespace to two others than the release's." }}
{{- end }}
{{- if not (hasSuffix "/" (.Values.hub.url | default "/")) }}
{{- $faults = append $faults "hub.url needs a slash at its end." }}
{{- end }}
{{- if not (hasSuffix "/" (.Values.hub.apiUrl | default "/")) }}
{{- $faults = append $faults "hub.apiUrl needs a slash at its end." }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.apiServer) (not (lookup "v1" "Endpoints" "default" "kubernetes")) }}
{{- $faults = append $faults "No cluster says where its API server is. Set networkPolicy.apiServer, such as [203.0.113.10/32], to what `kubectl get endpoints kubernetes` prints." }}
{{- end }}
{{- if lt (int .Values.limits.builds) (int .Values.limits.buildsPerOwner) }}
{{- $faults = append $faults "limits.buildsPerOwner is more than limits.builds, which holds anyway. Set it to as many or fewer." }}
{{- end }}
{{- if not (include "argosy.pipeline" .) }}
{{- $faults = append $faults (printf "This chart has no pipeline for scan.policy %s. Run `make render`." .Values.scan.policy) }}
{{- end }}
{{- toYaml $faults }}
{{- end }}
