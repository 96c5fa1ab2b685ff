# The Ruby sample from Rollout's page "Getting your API Key": it prints a token for each user id in its arguments.
require 'jwt'

def generate_token(user_id)
  now = Time.now.to_i

  JWT.encode(
    {
      iss: ENV['ROLLOUT_CLIENT_ID'],
      sub: user_id,
      iat: now,
      exp: now + 900 # 15 minutes
    },
    ENV['ROLLOUT_CLIENT_SECRET'],
    'HS512'
  )
end

ARGV.each { |user_id| puts generate_token(user_id) }
