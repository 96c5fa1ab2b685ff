# The routes of devise.rb, in their own file because Devise configures Warden after Rails has loaded the routes.
Rails.application.routes.draw do
  devise_for :users
  root to: "me#show"
  get "me", to: "me#show"
  post "away", to: "me#away"
end
