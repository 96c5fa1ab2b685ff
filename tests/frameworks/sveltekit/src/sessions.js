/** The app's sessions: user by the id in the cookie. */
export const sessions = new Map();
