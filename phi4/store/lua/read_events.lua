-- ARGV: job, number of the last event seen, most to give. Says that this job has a reader.
-- Returns {status or '', {number, event, data}…}, in order.
local job, after, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local status = redis.call('HGET', k_job(job), 'status')
if not status then return {''} end
if not TERMINAL[status] then redis.call('SET', k_reader(job), 1, 'EX', READER_TTL_S) end
local found = {}
for _, stream in ipairs({k_events(job), k_deltas(job)}) do
  for _, entry in ipairs(redis.call('XRANGE', stream, string.format('%.0f', after + 1), '+', 'COUNT', most)) do
    table.insert(found, {tonumber(string.match(entry[1], '^%d+')), entry[2][2], entry[2][4]})
  end
end
table.sort(found, function(a, b) return a[1] < b[1] end)
local reply = {status}
for i = 1, math.min(most, #found) do reply[i + 1] = found[i] end
return reply
