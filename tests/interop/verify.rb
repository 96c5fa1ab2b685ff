# Verifies tokens with Ruby's gem jwt, called as its own documentation shows.
require "json"
require "jwt"

$stdin.set_encoding("UTF-8").each_line(chomp: true) do |line|
  name, secret, issuer, token = line.split("\t")
  begin
    claims, _header = JWT.decode(token, secret, true, algorithm: "HS512", iss: issuer, verify_iss: true)
    answer = ["accepted", JSON.generate(claims)]
  rescue JWT::DecodeError => e
    answer = ["refused", e.message]
  end
  puts ["ruby-jwt", JWT.gem_version, name, *answer].join("\t")
end
