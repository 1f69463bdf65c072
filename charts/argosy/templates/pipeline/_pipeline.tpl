{{/* The pipeline as `make render` wrote it, under a name that is its content's: an upgrade never changes the pipeline
     of a build that runs. The ConfigMaps that it reads bear the same name, so a build keeps those, too. */}}

{{/* The text of the policy's document. */}}
{{- define "argosy.pipeline" -}}
{{- $policy := .Values.scan.policy -}}
{{- range splitList "\n---\n" (.Files.Get "files/pipeline.yaml") -}}
{{- $document := fromYaml . -}}
{{- if eq (dig "metadata" "labels" "argosy/policy" "" $document) $policy }}{{ . }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Named after all that decides what a build does. */}}
{{- define "argosy.templateName" -}}
{{- $all := list (include "argosy.pipeline" .) (include "argosy.parameters" .) (include "argosy.settings" .) -}}
argosy-build-{{ $all | toJson | sha256sum | trunc 10 }}
{{- end }}

{{/* What the pipeline's site parameters are: the data of the ConfigMap. */}}
{{- define "argosy.parameters" -}}
image: {{ .Values.images.steps | quote }}
builder-image: {{ .Values.images.builder | default .Values.images.steps | quote }}
strangers-patch: {{ include "argosy.strangersPatch" . | fromYaml | toJson | quote }}
ours-patch: {{ include "argosy.oursPatch" . | fromYaml | toJson | quote }}
resolve-patch: {{ include "argosy.resolvePatch" . | fromYaml | toJson | quote }}
deadline-seconds: {{ add .Values.limits.buildSeconds 600 | quote }}
public-url: {{ .Values.web.publicUrl | trimSuffix "/" | quote }}
secret-provider-token: {{ .Values.providers.github.tokenSecret | default "argosy-provider-token" }}
secret-git-credentials: {{ .Values.providers.git.credentialsSecret | default "argosy-git-credentials" }}
secret-registry-read: {{ .Values.registry.read.secret | default "argosy-registry-read" }}
secret-registry-write: {{ .Values.registry.write.secret | default "argosy-registry-write" }}
secret-staging-write: {{ .Values.registry.staging.secret | default "argosy-staging-write" }}
{{- end }}

{{/* Where pods of both halves run. */}}
{{- define "argosy.placePatch" -}}
{{- with .Values.builds.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.builds.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "argosy.stepResources" -}}
requests: {cpu: {{ .Values.builds.requests.stepCpu }}, memory: {{ .Values.builds.requests.stepMemory }}}
limits: {memory: {{ .Values.builds.stepMemoryLimit }}}
{{- end }}

{{/* What `build` may use: a stranger's lines as much as `limits.build.memory`, our own tools around them a little. */}}
{{- define "argosy.buildResources" -}}
requests: {cpu: {{ .Values.builds.requests.cpu }}, memory: {{ .Values.builds.requests.memory }}}
limits:
  cpu: {{ .Values.limits.build.cpus | quote }}
  memory: {{ add (include "argosy.bytes" .Values.limits.build.memory) 268435456 | quote }}
  ephemeral-storage: {{ .Values.limits.build.disk }}
{{- end }}

{{/* Where strangers' code runs. */}}
{{- define "argosy.strangersPlace" -}}
{{- include "argosy.placePatch" . }}
{{- with .Values.builds.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if eq .Values.builds.isolation "userns" }}
hostUsers: false
{{- end }}
{{- end }}

{{/* How strangers' code is kept apart. A containerSet's requests add up. */}}
{{- define "argosy.strangersPatch" -}}
{{- $builds := .Values.builds -}}
{{- include "argosy.strangersPlace" . }}
containers:
  {{- range list "fetch" "stage" }}
  - name: {{ . }}
    resources: {{- include "argosy.stepResources" $ | nindent 6 }}
  {{- end }}
  - name: build
    securityContext:
      runAsUser: 0
      runAsGroup: 0
      runAsNonRoot: false
      allowPrivilegeEscalation: true
      readOnlyRootFilesystem: false
      {{- if eq $builds.isolation "nested" }}
      # buildah makes a user namespace inside the container, which the container runtime's profile refuses. skopeo makes
      # one only where it lacks one of a few capabilities; without one it could not mount what buildah has built.
      seccompProfile: {type: Unconfined}
      capabilities: {drop: [MKNOD]}
      {{- else }}
      # It counts inside the pod's own user namespace, or its own kernel, alone.
      capabilities: {add: [SYS_ADMIN]}
      {{- end }}
      # AppArmor's profile for containers refuses every mount, also where nothing of the node's can be mounted.
      appArmorProfile: {type: Unconfined}
    resources: {{- include "argosy.buildResources" . | nindent 6 }}
{{- end }}

{{- define "argosy.resolvePatch" -}}
{{- include "argosy.placePatch" . }}
containers:
  - name: main
    resources: {{- include "argosy.stepResources" . | nindent 6 }}
{{- end }}

{{- define "argosy.oursPatch" -}}
{{- include "argosy.placePatch" . }}
containers:
  {{- range (eq .Values.scan.policy "off") | ternary (list "push" "publish") (list "push" "publish" "scan" "attach") }}
  - name: {{ . }}
    resources: {{- include "argosy.stepResources" $ | nindent 6 }}
    {{- if and (eq . "scan") $.Values.scan.database.claim }}
    volumeMounts:
      - {name: grype-db, mountPath: /run/grype-db, readOnly: true}
    {{- end }}
  {{- end }}
{{- if and (ne .Values.scan.policy "off") .Values.scan.database.claim }}
volumes:
  - name: grype-db
    persistentVolumeClaim: {claimName: {{ .Values.scan.database.claim }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Names of the arguments that a Workflow may carry, as JSON: the pipeline's own, and none of the site's. */}}
{{- define "argosy.arguments" -}}
{{- $names := list }}
{{- range (include "argosy.pipeline" . | fromYaml).spec.arguments.parameters }}
{{- if not (hasPrefix "site-" .name) }}{{ $names = append $names .name }}{{ end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/* What marks the objects of which the last two generations stay. */}}
{{- define "argosy.generation" -}}
labels:
  {{- include "argosy.labels" (list . "pipeline") | nindent 2 }}
  argosy/generation: {{ include "argosy.templateName" . }}
annotations:
  # Builds that run refer to it; `retire` removes it when it is the third, counted by the last release that it was of.
  helm.sh/resource-policy: keep
  argosy/revision: {{ .Release.Revision | quote }}
{{- end }}
