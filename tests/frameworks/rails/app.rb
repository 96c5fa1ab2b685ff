# A single-file Rails app with its own sign-in.
require_relative "base"

class SessionsController < ActionController::Base
  def create
    wanted = ENV.values_at("APP_USER", "APP_PASSWORD")
    return head :forbidden unless params.values_at(:username, :password) == wanted

    reset_session
    session[:user_id] = 23
    head :no_content
  end

  def destroy
    reset_session
    head :no_content
  end

  def show
    session[:user_id] ? render(plain: session[:user_id]) : head(:unauthorized)
  end

  def me
    session[:user_id] ? render(json: { id: session[:user_id] }) : head(:unauthorized)
  end
end

App.initialize!
App.routes.draw do
  post "login", to: "sessions#create"
  post "logout", to: "sessions#destroy"
  get "me", to: "sessions#show"
  get "api/me", to: "sessions#me"
end

Rack::Handler::WEBrick.run App, Host: "127.0.0.1", Port: ENV.fetch("PORT")
