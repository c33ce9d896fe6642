-- One request of fifty is "wrong", and the story of it is kept for a report
-- that nobody asks for.
local errors = package.loaded.errors or {}
package.loaded.errors = errors
local rows = {}
for i = 1, 200 do
  rows[i] = ngx.md5(i .. ngx.var.request_uri)
end
local page = table.concat(rows, "\n")
if math.random(50) == 1 then
  errors[#errors + 1] = { uri = ngx.var.request_uri, page = page }
end
ngx.say(page)
