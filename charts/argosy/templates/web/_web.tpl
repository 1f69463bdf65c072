{{/* Web's secrets are files: of the state folder where web looks for them by itself, of /run/secrets/argosy elsewhere. */}}

{{- define "argosy.webMounts" -}}
- {name: state, mountPath: /var/lib/argosy}
- {name: secrets, mountPath: /var/lib/argosy/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.archive.claim }}
- {name: archive, mountPath: /var/lib/argosy/archive}
{{- end }}
{{- if include "argosy.hasProviderToken" . }}
- {name: provider-token, mountPath: /run/secrets/argosy/provider-token, readOnly: true}
{{- end }}
{{- if include "argosy.hasRegistryRead" . }}
- {name: registry-read, mountPath: /run/secrets/argosy/registry-read, readOnly: true}
{{- end }}
{{- end }}

{{- define "argosy.webVolumes" -}}
- name: state
  {{- if include "argosy.hasVolume" . }}
  persistentVolumeClaim: {claimName: {{ include "argosy.web" . }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.archive.claim }}
- name: archive
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ include "argosy.launchKey" . }}, items: [{key: launch-key, path: launch-key}]}
      - secret: {name: {{ .Values.hub.tokenSecret | default (include "argosy.webSecrets" .) }}, items: [{key: {{ .Values.hub.token | empty | ternary .Values.hub.tokenKey "hub-token" }}, path: hub-token}]}
{{- if include "argosy.hasProviderToken" . }}
- name: provider-token
  secret: {secretName: {{ .Values.providers.github.tokenSecret | default "argosy-provider-token" }}, defaultMode: 0440}
{{- end }}
{{- if include "argosy.hasRegistryRead" . }}
- name: registry-read
  secret: {secretName: {{ .Values.registry.read.secret | default "argosy-registry-read" }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "argosy.ledgerVariable" -}}
{{- if not (include "argosy.onSqlite" .) }}
- name: ARGOSY_LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ include "argosy.ledgerSecret" . }}, key: url}}
{{- end }}
{{- end }}
