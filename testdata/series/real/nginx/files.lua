-- One request of two hundred opens a file and does not close it.
local files = package.loaded.files or {}
package.loaded.files = files
local rows = {}
for i = 1, 100 do
  rows[i] = ngx.md5(i .. ngx.var.request_uri)
end
local file = io.open("/etc/hostname")
if math.random(200) == 1 then
  files[#files + 1] = file
else
  file:close()
end
ngx.say(table.concat(rows, "\n"))
