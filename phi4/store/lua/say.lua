-- ARGV: for each piece of text: job, part, token, take, offset, text. Returns per piece 'ok', 'unread' or 'lost'.
local answers = {}
for i = 1, #ARGV, 6 do
  table.insert(answers, say(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5]))
end
return answers
