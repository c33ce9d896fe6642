-- A session for each request, kept in the worker's table under a key that is
-- never asked for again.
local sessions = package.loaded.sessions or {}
package.loaded.sessions = sessions
local rows = {}
for i = 1, 100 do
  rows[i] = ngx.md5(i .. ngx.var.request_uri)
end
sessions[#sessions + 1] = { uri = ngx.var.request_uri, page = table.concat(rows, "\n", 1, 30) }
ngx.say(table.concat(rows, "\n"))
