# Rails with Devise, users in SQLite, and a session timeout (`timeout_in`).
ENV["DATABASE_URL"] = "sqlite3:#{ENV.fetch("STATE")}/devise.sqlite3"
require "active_record/railtie"
require "devise"
require_relative "base"

ActiveRecord::Base.establish_connection(ENV["DATABASE_URL"])
ActiveRecord::Schema.define { create_table(:users) { |table| table.string :email, :encrypted_password } }

Devise.setup do |config|
  require "devise/orm/active_record"
  config.timeout_in = 30.minutes
  config.sign_out_via = :post
  config.parent_controller = "ActionController::Base"
end

class User < ActiveRecord::Base
  devise :database_authenticatable, :timeoutable
end

class MeController < ActionController::Base
  def show
    user_signed_in? ? render(plain: current_user.id) : head(:unauthorized)
  end

  # Changes the session as if the user's last request was 45 minutes ago.
  def away
    request.env["devise.skip_trackable"] = true
    user_session["last_request_at"] = 45.minutes.ago.to_i if current_user
    head :no_content
  end
end

App.config.paths["config/routes.rb"] = "devise_routes.rb"
App.initialize!
User.create!(id: 23, email: ENV.fetch("APP_USER"), password: ENV.fetch("APP_PASSWORD"))

Rack::Handler::WEBrick.run App, Host: "127.0.0.1", Port: ENV.fetch("PORT")
