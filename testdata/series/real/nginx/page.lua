-- A page made of many small strings, which the collector takes back.
local rows = {}
for i = 1, 200 do
  rows[i] = ngx.md5(i .. ngx.var.request_uri)
end
ngx.say(table.concat(rows, "\n"))
