-- What Open OnDemand's own handlers do to a request, as far as a backend sees it: the user's name is set whatever the browser sent, and the
-- request goes on to the backend that the address names.

local function forward(r, target, uri)
  local user = r.subprocess_env['PORTAL_USER'] or r.user
  if not user then
    return 401
  end
  if uri == '' then
    uri = '/'
  end
  r.handler = 'proxy-server'
  r.proxyreq = apache2.PROXYREQ_REVERSE
  r.filename = 'proxy:http://' .. target .. uri
  r.headers_in['X-Forwarded-Proto'] = 'https'
  r.headers_in['X-Forwarded-User'] = user
  r.headers_in['X-Forwarded-Escaped-Uri'] = r:escape(uri)
  return apache2.DECLINED
end

-- The rest of the address as the browser wrote it, with its query.
function rnode(r)
  local env = r.subprocess_env
  local prefix = '/rnode/' .. env['MATCH_HOST'] .. '/' .. env['MATCH_PORT']
  return forward(r, env['MATCH_HOST'] .. ':' .. env['MATCH_PORT'], string.sub(r.unparsed_uri, #prefix + 1))
end

-- Each user's own web server; which one is the portal's to know.
function pun(r)
  local user = r.subprocess_env['PORTAL_USER'] or r.user
  local port = user and r.subprocess_env['PUN_' .. user]
  if not port then
    return 404
  end
  return forward(r, '127.0.0.1:' .. port, r.unparsed_uri)
end
