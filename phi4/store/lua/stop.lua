-- ARGV: job, final status, error (JSON). Returns the queue to wake or ''.
return stop_job(ARGV[1], ARGV[2], ARGV[3])
