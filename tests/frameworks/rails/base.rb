# Shared by the apps in this folder: Rails with sessions in an encrypted cookie, serialized as JSON.
require "logger"
require "action_controller/railtie"
require "rack/handler/webrick"

LOAD_DEFAULTS = ENV.fetch("LOAD_DEFAULTS")

# Debian 12 has Rails 6.1, so this class derives the cookie's keys with SHA-256, as the 7.0 defaults do.
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
  config.action_controller.default_protect_from_forgery = false # the apps have no forms with a CSRF token
end
