# The routes of devise.rb. Devise sets Warden up after Rails has loaded this file.
Rails.application.routes.draw do
  devise_for :users
  root to: "me#show"
  get "me", to: "me#show"
  post "away", to: "me#away"
end
