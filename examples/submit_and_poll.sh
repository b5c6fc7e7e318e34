#!/usr/bin/env bash
# Sends a file as a job, waits for its end, and writes its text: submit_and_poll.sh FILE [TYPE]   (ocr by default, or asr)
set -euo pipefail
service=${PHI4_URL:-http://127.0.0.1:8000}
key=(${PHI4_API_KEY:+--header "Authorization: Bearer $PHI4_API_KEY"})

job=$(curl --fail-with-body -sS "${key[@]}" "$service/v1/jobs" -F "type=${2:-ocr}" -F "file=@$1" | sed -E 's/^\{"id":"([^"]+)".*/\1/')
while :; do
  # Answers on the next change of status, or after 30 s.
  status=$(curl --fail-with-body -sS "${key[@]}" "$service/v1/jobs/$job?wait=30" | sed -E 's/.*"status":"([a-z_]+)".*/\1/;q')
  case $status in queued | in_progress | cancelling) ;; *) break ;; esac
done
curl --fail-with-body -sS "${key[@]}" "$service/v1/jobs/$job/result?format=text"
