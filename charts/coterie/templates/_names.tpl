{{/* Every object of the operator has this name: "coterie-operator" for a release called coterie. */}}
{{- define "coterie.name" -}}
{{- printf "%s-operator" (.Release.Name | trunc 54 | trimSuffix "-") -}}
{{- end }}

{{/* The labels that select the operator's pods; they never change. */}}
{{- define "coterie.selector" -}}
app.kubernetes.io/name: coterie
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "coterie.labels" -}}
{{ include "coterie.selector" . }}
{{ include "coterie.versionLabels" . }}
{{- end }}

{{/* Every object of the front door: "coterie-front-door" for a release called coterie. */}}
{{- define "coterie.frontDoor.name" -}}
{{- printf "%s-front-door" (.Release.Name | trunc 44 | trimSuffix "-") -}}
{{- end }}

{{/* The labels that select the front door's pods; the operator finds them by these, too. */}}
{{- define "coterie.frontDoor.selector" -}}
app.kubernetes.io/name: coterie
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: front-door
{{- end }}

{{- define "coterie.frontDoor.labels" -}}
{{ include "coterie.frontDoor.selector" . }}
{{ include "coterie.versionLabels" . }}
{{- end }}

{{- define "coterie.versionLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* repository:tag of one of the images; call with (dict "image" … "root" $). */}}
{{- define "coterie.image" -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end }}
