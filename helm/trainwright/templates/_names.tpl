{{/* The labels of every object of the chart. */}}
{{- define "trainwright.labels" -}}
{{ include "trainwright.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The labels a pod is found by: the operator's, or that of another component. */}}
{{- define "trainwright.selector" -}}
app.kubernetes.io/name: trainwright
app.kubernetes.io/component: {{ .component | default "operator" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The operator's image: by digest where one is given. */}}
{{- define "trainwright.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Where the follower of the annotation stream runs: beside the claim. */}}
{{- define "trainwright.follower.namespace" -}}
{{ .Values.annotationStream.namespace | default .Release.Namespace }}
{{- end }}

{{/* The port of the broker that it follows. */}}
{{- define "trainwright.follower.port" -}}
{{ .Values.annotationStream.port | default (ternary 5551 5552 .Values.annotationStream.tls) }}
{{- end }}

{{/* The operator's account, as the subject of a binding. */}}
{{- define "trainwright.subject" -}}
- kind: ServiceAccount
  name: trainwright-operator
  namespace: {{ .Release.Namespace | quote }}
{{- end }}
