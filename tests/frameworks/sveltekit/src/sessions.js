/** The app's sessions: a map from the session id in the cookie to the user. */
export const sessions = new Map();
