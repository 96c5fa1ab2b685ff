# What the apps of this folder share: Rails with the session in its encrypted cookie, serialised as JSON.
require "logger"
require "action_controller/railtie"
require "rack/handler/webrick"

LOAD_DEFAULTS = ENV.fetch("LOAD_DEFAULTS")

# What the defaults of 7.0 change about the session's cookie, for Debian 12's Rails, which does not know them.
class SHA256KeyGenerator < ActiveSupport::KeyGenerator
  def generate_key(salt, size = 64)
    OpenSSL::PKCS5.pbkdf2_hmac(@secret, salt, @iterations, size, "SHA256")
  end
end

class App < Rails::Application
  if LOAD_DEFAULTS == "7.0" && Rails::VERSION::MAJOR < 7
    config.load_defaults "6.1"
    def key_generator
      @sha256_key_generator ||= SHA256KeyGenerator.new(secret_key_base, iterations: 1000)
    end
  else
    config.load_defaults LOAD_DEFAULTS
  end
  config.eager_load = false
  config.force_ssl = ENV.key?("FORCE_SSL")
  config.logger = Logger.new($stdout)
  config.secret_key_base = ENV.fetch("SECRET_KEY_BASE")
  config.session_store :cookie_store, key: "_app_session"
  config.action_dispatch.cookies_serializer = :json
  config.action_controller.default_protect_from_forgery = false # there are no forms here to carry its token
end
